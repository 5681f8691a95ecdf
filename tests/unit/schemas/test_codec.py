"""The codec of one class: what it does not write, and what it reads of older and newer messages."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from magnetar.schemas import Command, Event, Immutable, PartitionRefused, Precision, State, Undecodable, uuid7
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope, UnknownCommandType, encode_ids_to_time
from magnetar.schemas.commit import NO_SOURCE, CommitCodec, write_source
from magnetar.schemas.derivation import RecordCodec, record_schema


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Number(Enum):
    ONE = 1


class Money(Immutable):
    amount: Annotated[Decimal, Precision(6, 2)]


class Dearer(Money):
    tip: int = 0


class Card(State):
    number: str


class Cash(State):
    pass


class Bought(Event):
    """What is written."""

    count: int = 1
    day: date = date(2020, 1, 1)
    at: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    opens: time = time(8)
    takes: timedelta = timedelta(1)
    blob: bytes = b""
    name: str = ""
    id: UUID = UUID(int=1)
    color: Color = Color.RED
    number: Number = Number.ONE
    word: Literal["yes", "no"] = "yes"
    price: Money = Money(Decimal(1))
    prices: tuple[Money, ...] = ()
    names: frozenset[str] = frozenset()
    pair: tuple[int, str] = (1, "x")
    by_name: Mapping[str, Money] = {}
    paid: Card | Cash = Cash()
    big: tuple[int | None, ...] = ()


CODEC = RecordCodec(Bought, record_schema(Bought, namespace="n"))
WRONG: dict[str, tuple[str, Any, str]] = {
    "too long": ("count", 2**63, r"Bought\.count is 9223372036854775808, which does not fit 64 bits"),
    "too long within": ("big", (None, -(2**63) - 1), r"Bought\.big is -9223372036854775809"),
    "a float": ("count", 1.0, "Expected `int`, got `float`"),
    "a truth value": ("count", True, "Expected `int`, got `bool`"),
    "a text for a date": ("day", "2020-01-01", r"Bought\.day is a str, not a date"),
    "a datetime for a date": ("day", datetime(2020, 1, 1, tzinfo=UTC), "Expected `date`"),
    "a text for a datetime": ("at", "2020-01-01T00:00:00Z", r"Bought\.at is a str, not a datetime"),
    "no zone": ("at", datetime(2020, 1, 1), r"Bought\.at is .* without a time zone"),
    "a zone": ("opens", time(8, tzinfo=UTC), r"Bought\.opens is .* no time zone"),
    "a long time": ("takes", timedelta.max, r"Bought\.takes is \d+, which does not fit 64 bits"),
    "a number for a duration": ("takes", "P1D", r"Bought\.takes is a str, not a timedelta"),
    "a text for bytes": ("blob", "aGk=", r"Bought\.blob is a str, not a bytes"),
    "half a surrogate pair": ("name", "\ud800", r"Bought\.name is a text with half of a surrogate pair"),
    "a text for a UUID": ("id", str(UUID(int=1)), r"Bought\.id is a str, not a UUID"),
    "a symbol for an enum": ("color", "red", r"Bought\.color is 'red', not a Color"),
    "a number for an enum": ("number", 1, r"Bought\.number is 1, not a Number"),
    "another word": ("word", "maybe", "maybe"),
    "a price to be rounded": ("price", Money(Decimal("1.005")), r"Bought\.price: Money\.amount is 1\.005, .* rounded"),
    "a price too long": ("price", Money(Decimal(10000)), r"Money\.amount is 10000, .* Precision"),
    "no number": ("price", Money(Decimal("NaN")), "no number"),
    "a float for a decimal": ("price", Money(1.5), r"Money\.amount is a float, not a Decimal"),  # type: ignore[arg-type]
    "a subclass": ("price", Dearer(Decimal(1), 2), "Expected `object`, got `Dearer`"),
    "within a tuple": ("prices", (Money(Decimal("0.001")),), r"Bought\.prices: Money\.amount is 0\.001"),
    "a list": ("prices", [Money(Decimal(1))], r"Bought\.prices is a list, not a tuple"),
    "a set": ("names", {"a"}, r"Bought\.names is a set, not a frozenset"),
    "a list for a pair": ("pair", [1, "x"], r"Bought\.pair is a list, not a tuple"),
    "too many": ("pair", (1, "x", 2), "Expected `array` of length 2"),
    "within a mapping": ("by_name", {"a": Money(Decimal("0.001"))}, r"Bought\.by_name: Money\.amount is 0\.001"),
    "no branch": ("paid", Money(Decimal(1)), "Money|object"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_value_that_does_not_fit_is_not_written_and_the_field_is_named(what: str) -> None:
    field, value, says = WRONG[what]
    with pytest.raises((TypeError, ValueError), match=says):
        CODEC.encode(Bought(**{field: value}))


def test_a_decimal_is_written_with_all_its_places_and_never_rounded() -> None:
    def read(text: str) -> Decimal:
        price: Decimal = CODEC.decode(io.BytesIO(CODEC.encode(Bought(price=Money(Decimal(text)))))).price.amount
        return price

    assert str(read("1.5")) == "1.50"
    assert str(read("1.500")) == "1.50"
    assert str(read("1E+3")) == "1000.00"
    assert read("-9999.99") == Decimal("-9999.99")


SET_OF_TEXTS = """
import sys
from magnetar.schemas import Event
from magnetar.schemas.derivation import RecordCodec, record_schema
class Tagged(Event):
    tags: frozenset[str | None]
print(RecordCodec(Tagged, record_schema(Tagged, namespace="n")).encode(Tagged(frozenset([*"hello world", None]))).hex())
"""


def test_a_set_is_written_in_the_same_order_by_every_process() -> None:
    def written(seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-c", SET_OF_TEXTS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert written("1") == written("2")


# --- older and newer messages ----------------------------------------------------------------------------------------


class Paid0(Event, wire_name="Paid"):
    price: Money


class Cents(Immutable, wire_name="Money"):
    """`Money`, grown by a field."""

    amount: Annotated[Decimal, Precision(6, 2)]
    note: str | None = None
    rate: float = float("inf")  # which no JSON can say, and Python can


class Green(Enum):
    GREEN = "green"
    RED = "red"


class Cheque(State):
    pass


class Paid1(Event, wire_name="Paid"):
    color: Green = Green.GREEN
    price: Cents = Cents(Decimal(0))
    paid: Card | Cash | Cheque = Cash()
    takes: timedelta | None = None
    words: tuple[Literal["a", "b"], ...] = ()


class Paid2(Event, wire_name="Paid"):
    color: Color = Color.BLUE
    price: Cents = Cents(Decimal(0))
    paid: Card | Cash = Card("0")
    takes: timedelta | None = None
    words: tuple[Literal["a"], ...] = ()


class Paid3(Event, wire_name="Paid"):
    price: int


class Paid4(Event, wire_name="Paid"):
    price: Money
    needed: int


class Pay(Command):
    color: Color


def schema(event: Any) -> AggregateSchema:
    return AggregateSchema("bank", "Account", commands=[Pay], events=[event], rejections=[])


def reread(written: Event, reading: type[Event]) -> Any:
    """An event of one release, as another release reads it from a commit."""
    codec = CommitCodec(schema(type(written)))
    envelope = CommandEnvelope("a", uuid7(1, 1), 0)
    ids, source = encode_ids_to_time(envelope), write_source(NO_SOURCE)
    payload = codec.encode(1, bytes(16), envelope, 0, ids, source, codec.accepted([written]))
    (event,) = CommitCodec(schema(reading)).for_schema(schema(type(written)).commit_json).decode(payload).events
    return event


def test_an_older_event_has_the_defaults_of_what_it_lacks_nested_too() -> None:
    event = reread(Paid0(Money(Decimal("1.50"))), Paid1)
    assert event == Paid1(price=Cents(Decimal("1.50"), None, float("inf")))


def test_the_order_of_fields_and_symbols_is_free() -> None:
    event = reread(Paid1(Green.RED, Cents(Decimal(1)), Card("7"), timedelta(1), ("a",)), Paid2)
    assert event == Paid2(color=Color.RED, price=Cents(Decimal(1)), paid=Card("7"), takes=timedelta(1), words=("a",))


REFUSED: dict[str, tuple[Event, Any, str]] = {
    "a field": (Paid1(price=Cents(Decimal(1))), Paid0, r"Paid(\.color|\.price\.note), which this code lacks"),
    "another field": (Paid4(Money(Decimal(1)), 1), Paid0, r"Paid\.needed, which this code lacks"),
    "a symbol": (Paid1(price=Cents(Decimal(1))), Paid2, r"Paid with Color\.green, which this code lacks"),
    "a branch": (Paid1(Green.RED, Cents(Decimal(1)), Cheque()), Paid2, "Paid with Cheque, which this code lacks"),
    "a literal": (Paid1(Green.RED, Cents(Decimal(1)), words=("b",)), Paid2, "Paid with is 'b', none of 'a'"),
    "another type": (Paid0(Money(Decimal(1))), Paid3, r"Paid\.price as record, which this code declares as long"),
    "a field that is needed": (Paid0(Money(Decimal(1))), Paid4, "Paid without needed, which this code requires"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_this_code_does_not_know_refuses_the_partition(what: str) -> None:
    written, reading, says = REFUSED[what]
    with pytest.raises(PartitionRefused, match=says):
        reread(written, reading)


def test_a_nested_field_alone_refuses_the_partition() -> None:
    class Paid5(Event, wire_name="Paid"):
        price: Cents

    with pytest.raises(PartitionRefused, match=r"Paid\.price\.note, which this code lacks"):
        reread(Paid5(Cents(Decimal(1))), Paid0)


class Rename(Command):
    name: str


class Cancel(Command):
    pass


class RenameSoon(Command, wire_name="Rename"):
    name: str
    on: date = date(2020, 1, 1)


def commands(*classes: type[Command]) -> AggregateSchema:
    return AggregateSchema("bank", "Account", commands=classes, events=[], rejections=[])


OLD, NEW = commands(Rename), commands(Cancel, RenameSoon)


def sent(schema: AggregateSchema, command: Command) -> bytes:
    return CommandCodec(schema).encode(CommandEnvelope("a", uuid7(1, 1), 0), command)


def test_a_command_of_an_older_schema_is_read_with_that_schema() -> None:
    codec = CommandCodec(NEW).for_schema(OLD.command_json)
    assert codec.decode(sent(OLD, Rename("x"))).command == RenameSoon("x")


def test_a_command_of_a_newer_schema_is_read_as_far_as_it_is_known() -> None:
    codec = CommandCodec(OLD).for_schema(NEW.command_json)
    with pytest.raises(UnknownCommandType, match=r"Rename\.on, which this code lacks") as raised:
        codec.decode(sent(NEW, RenameSoon("x")))
    assert raised.value.fields["envelope"] == CommandEnvelope("a", uuid7(1, 1), 0)
    with pytest.raises(UnknownCommandType, match="Cancel, which Account does not declare"):
        codec.decode(sent(NEW, Cancel()))
    wider = CommandCodec(OLD).for_schema(commands(Cancel, Rename).command_json)
    assert wider.decode(sent(commands(Cancel, Rename), Rename("x"))).command == Rename("x")


def test_properties_that_another_language_adds_to_a_schema_change_nothing() -> None:
    javas = OLD.command_json.replace('"type": "string"', '"type": {"type": "string", "avro.java.string": "String"}')
    assert CommandCodec(OLD).for_schema(javas).decode(sent(OLD, Rename("x"))).command == Rename("x")


@pytest.mark.parametrize("foreign", ["junk", "[]", '{"fields": []}', '"string"', OLD.commit_json])
def test_a_message_of_a_schema_that_is_none_of_commands_is_undecodable(foreign: str) -> None:
    with pytest.raises(Undecodable, match="not one of commands of Account"):
        CommandCodec(OLD).for_schema(foreign).decode(sent(OLD, Rename("x")))


def test_a_command_with_a_symbol_that_its_schema_lacks_is_undecodable() -> None:
    payload = CommandCodec(schema(Paid0)).encode(CommandEnvelope("a", uuid7(1, 1), 0), Pay(Color.RED))
    with pytest.raises(Undecodable):
        CommandCodec(schema(Paid0)).decode(payload[:-1] + b"\x7e")


class Order(Command):
    color: Color = Color.RED
    money: Money | None = None
    paid: Card | Cash = Cash()
    tags: tuple[str, ...] = ()
    prices: Mapping[str, int] = {}
    pair: tuple[int, str] = (1, "")


def broken(schema: Any) -> Iterator[str]:
    """The schema with one thing in it replaced by nonsense, for each thing and each nonsense."""
    whole = json.dumps(schema)
    each: tuple[Any, ...] = (None, {}, [], "nonsense", 7)
    for path in paths(schema):
        for nonsense in each:
            changed = around = json.loads(whole)
            for key in path[:-1]:
                around = around[key]
            around[path[-1]] = nonsense
            yield json.dumps(changed)


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*so_far, key)
        yield from paths(part, (*so_far, key))


def test_commands_of_a_schema_that_is_broken_anywhere_are_read_or_undecodable() -> None:
    schema = commands(Order)
    message = sent(schema, Order())
    for text in broken(schema.command_schema):
        codec = CommandCodec(schema).for_schema(text)
        try:
            assert codec.decode(message).command == Order(), text
        except Undecodable:
            continue


def test_commits_of_a_schema_that_is_broken_anywhere_are_read_or_refuse_the_partition() -> None:
    of_paid = schema(Paid2)
    for text in ["junk", "[]", "null", *broken(of_paid.commit_schema)]:
        try:
            CommitCodec(of_paid).for_schema(text)
        except PartitionRefused:
            continue
