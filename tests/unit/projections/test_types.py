"""Every type through the real mirror: the column that docs/wire-format.md promises, and the value as it was written."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from magnetar.projections.columns import column_type, literal, quoted, structure
from magnetar.projections.container import container
from magnetar.projections.decoding import Decoding
from magnetar.projections.store import Store
from magnetar.schemas import Event, Immutable, Precision, State
from magnetar.schemas.derivation import RecordCodec
from magnetar.schemas.derive import record_of

from tests.unit.projections.test_mirror import Context
from tests.unit.schemas.classes import EVENTS, Typed


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    LOW = 1
    HIGH = 2


class Money(Immutable):
    """An amount of money."""

    amount: Annotated[Decimal, Precision(18, 2)]
    currency: Literal["EUR", "USD"] = "EUR"


class Line(Immutable):
    name: str
    price: Money
    tags: tuple[str, ...] = ()


class Nothing(Immutable):
    pass


class ByPost(State):
    street: str
    lines: tuple[Line, ...] = ()


class ByBike(State):
    street: str


class PickedUp(State):
    pass


class Column(NamedTuple):
    """An annotation, its column's type, and pairs of a value and what the column says."""

    annotation: Any
    type: str
    values: tuple[tuple[Any, Any], ...]


def same(*values: Any) -> tuple[tuple[Any, Any], ...]:
    """Values that come out as they went in."""
    return tuple((value, value) for value in values)


MONEY = Money(Decimal("-9999999999999999.99"), "USD")
MONEY_SHOWN = {"amount": Decimal("-9999999999999999.99"), "currency": "USD"}
MONEY_TYPE = "`amount` Decimal(18, 2), `currency` LowCardinality(String)"
LINE = Line("ä", MONEY, ("x", ""))
LINE_SHOWN = {"name": "ä", "price": MONEY_SHOWN, "tags": ["x", ""]}
LINE_TYPE = f"`name` String, `price` Tuple({MONEY_TYPE}), `tags` Array(String)"
DELIVERY_TYPE = (
    f"`type` LowCardinality(String), `ByBike` Nullable(Tuple(`street` String)), "
    f"`ByPost` Nullable(Tuple(`street` String, `lines` Array(Tuple({LINE_TYPE})))), `PickedUp` Nullable(Tuple())"
)
POST = {"type": "ByPost", "ByBike": None, "ByPost": {"street": "s", "lines": [LINE_SHOWN]}, "PickedUp": None}
BIKE = {"type": "ByBike", "ByBike": {"street": "s"}, "ByPost": None, "PickedUp": None}
PICKED = {"type": "PickedUp", "ByBike": None, "ByPost": None, "PickedUp": ()}
FAR = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

COLUMNS = {
    "a_bool": Column(bool, "Bool", same(True, False)),
    "an_int": Column(int, "Int64", same(2**63 - 1, -(2**63))),
    "a_float": Column(float, "Float64", same(1.7976931348623157e308, 5e-324, float("-inf"))),
    "a_str": Column(str, "String", same("Zürich \0 '\\ 🚀", "")),
    "some_bytes": Column(bytes, "String", ((b"\0\xff\x00", "00FF00"), (b"", ""))),
    "a_decimal": Column(
        Annotated[Decimal, Precision(76, 38)],
        "Decimal(76, 38)",
        same(Decimal("9" * 38 + "." + "9" * 38), Decimal("-0." + "0" * 37 + "1")),
    ),
    "a_date": Column(date, "Date32", same(date(9999, 12, 31), date(1, 1, 1), date(1900, 1, 1), date(2299, 12, 31))),
    "an_instant": Column(
        datetime,
        "DateTime64(6, 'UTC')",
        ((FAR, FAR.replace(tzinfo=None)), (LONG_AGO, LONG_AGO.replace(tzinfo=None))),
    ),
    "a_time": Column(time, "Int64", ((time.max, 86_399_999_999), (time.min, 0))),
    "a_duration": Column(timedelta, "Int64", ((timedelta(microseconds=-(2**63)), -(2**63)), (DAY, 86_400_000_000))),
    "a_uuid": Column(UUID, "UUID", same(UUID(int=2**128 - 1), UUID(int=0))),
    "a_color": Column(Color, "LowCardinality(String)", ((Color.RED, "red"), (Color.BLUE, "blue"))),
    "a_level": Column(Level, "LowCardinality(String)", ((Level.LOW, "LOW"), (Level.HIGH, "HIGH"))),
    "a_word": Column(Literal["yes", "no"], "LowCardinality(String)", same("yes", "no")),
    "a_number": Column(Literal[1, -5], "Int64", same(1, -5)),
    "a_truth": Column(Literal[True], "Bool", same(True)),
    "maybe_int": Column(int | None, "Nullable(Int64)", same(None, 0)),
    "maybe_str": Column(str | None, "Nullable(String)", same(None, "")),
    "maybe_time": Column(time | None, "Nullable(Int64)", ((None, None), (time(0, 0, 1), 1_000_000))),
    "maybe_color": Column(Color | None, "LowCardinality(Nullable(String))", ((None, None), (Color.RED, "red"))),
    "maybe_money": Column(Money | None, f"Nullable(Tuple({MONEY_TYPE}))", ((None, None), (MONEY, MONEY_SHOWN))),
    "words": Column(tuple[str, ...], "Array(String)", (((), []), (("ß", ""), ["ß", ""]))),
    "maybes": Column(tuple[int | None, ...], "Array(Nullable(Int64))", (((), []), ((None, 1), [None, 1]))),
    "matrix": Column(tuple[tuple[float, ...], ...], "Array(Array(Float64))", (((), []), (((), (1.5,)), [[], [1.5]]))),
    "numbers": Column(frozenset[int], "Array(Int64)", ((frozenset(), []), (frozenset({300, -2, 7}), [-2, 7, 300]))),
    "colors": Column(
        frozenset[Color], "Array(LowCardinality(String))", ((frozenset(Color), ["blue", "red"]), (frozenset(), []))
    ),
    "pair": Column(
        tuple[int, str | None],
        "Tuple(`e1` Int64, `e2` Nullable(String))",
        (((1, None), {"e1": 1, "e2": None}), ((2, "x"), {"e1": 2, "e2": "x"})),
    ),
    "pairs": Column(
        tuple[tuple[date, int], ...],
        "Array(Tuple(`e1` Date32, `e2` Int64))",
        (((), []), (((date(2020, 1, 1), 1),), [{"e1": date(2020, 1, 1), "e2": 1}])),
    ),
    "counts": Column(Mapping[str, int], "Map(String, Int64)", (({}, {}), ({"ü": 1, "": 0}, {"ü": 1, "": 0}))),
    "lists": Column(
        Mapping[str, tuple[str, ...]], "Map(String, Array(String))", (({}, {}), ({"a": ("b",)}, {"a": ["b"]}))
    ),
    "maybe_moneys": Column(
        Mapping[str, Money | None],
        f"Map(String, Nullable(Tuple({MONEY_TYPE})))",
        (({}, {}), ({"a": None, "b": MONEY}, {"a": None, "b": MONEY_SHOWN})),
    ),
    "a_line": Column(Line, f"Tuple({LINE_TYPE})", ((LINE, LINE_SHOWN),)),
    "lines": Column(tuple[Line, ...], f"Array(Tuple({LINE_TYPE}))", (((), []), ((LINE, LINE), [LINE_SHOWN] * 2))),
    "nothing": Column(Nothing, "Tuple()", ((Nothing(), ()),)),
    "delivery": Column(
        ByPost | ByBike | PickedUp,
        f"Tuple({DELIVERY_TYPE})",
        ((ByPost("s", (LINE,)), POST), (ByBike("s"), BIKE), (PickedUp(), PICKED)),
    ),
    "maybe_delivery": Column(
        ByPost | ByBike | PickedUp | None, f"Nullable(Tuple({DELIVERY_TYPE}))", ((None, None), (ByBike("s"), BIKE))
    ),
    "deliveries": Column(
        tuple[ByPost | ByBike | PickedUp, ...],
        f"Array(Tuple({DELIVERY_TYPE}))",
        (((), []), ((PickedUp(), ByBike("s")), [PICKED, BIKE])),
    ),
}
Everything: Any = type(
    "Everything",
    (Event,),
    {"__annotations__": {name: column.annotation for name, column in COLUMNS.items()}, "__module__": __name__},
)
ROUNDS = max(len(column.values) for column in COLUMNS.values())


def of_round(number: int, part: int) -> dict[str, Any]:
    """One value of each column, or what is expected of it."""
    return {name: column.values[number % len(column.values)][part] for name, column in COLUMNS.items()}


class Plain(Event):
    pass


@pytest.mark.parametrize("decoding", [Decoding.ENGINE, Decoding.PYTHON])
def test_every_type_has_its_column_and_its_values_come_out_as_they_were_written(
    store: Store, tmp_path: Path, decoding: Decoding
) -> None:
    context = Context(store, tmp_path, [Everything, Plain], decoding=decoding)
    for number in range(ROUNDS):
        context.accepted(number + 1, Plain(), Everything(**of_round(number, 0)), version=2 * number)
    loop = context.loop()
    while loop.step():
        pass
    for table in ("account__events__g1", "Everything"):
        described = {
            row[0].removeprefix("Everything."): " ".join(row[1].split()) for row in context.rows(f"DESCRIBE DB.{table}")
        }
        for name, column in COLUMNS.items():
            assert described[name].replace("`", "").replace("( ", "(") == column.type.replace("`", ""), name
    names = ", ".join(f"hex({name})" if name == "some_bytes" else name for name in COLUMNS)
    rows = context.rows(f"SELECT {names} FROM DB.Everything ORDER BY _version")
    for number, row in enumerate(rows):
        assert dict(zip(COLUMNS, row, strict=True)) == of_round(number, 1)
    assert len(rows) == ROUNDS
    assert context.rows("SELECT count() FROM DB.Plain") == [(ROUNDS,)]


def test_what_is_said_of_a_field_is_the_comment_of_its_column(store: Store, tmp_path: Path) -> None:
    class Timed(Event):
        opens: Annotated[time, "when the doors open"]
        takes: timedelta
        delay: Annotated[int | None, msgspec.Meta(description="in minutes")]

    context = Context(store, tmp_path, [Timed])
    expected = {
        "opens": "when the doors open; microseconds since midnight",
        "takes": "microseconds",
        "delay": "in minutes",
    }
    comments = "SELECT name, comment FROM system.columns WHERE database = {} AND table = {} AND comment != ''"
    name = literal(context.name)
    assert expected.items() <= dict(context.rows(comments.format(name, "'Timed'"))).items()
    mirrored = {f"Timed.{field}": comment for field, comment in expected.items()}
    assert mirrored.items() <= dict(context.rows(comments.format(name, "'account__events__g1'"))).items()


@given(EVENTS, st.data())
@settings(
    max_examples=30, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
def test_clickhouse_reads_generated_events(store: Store, tmp_path: Path, typed: Typed, data: st.DataObject) -> None:
    schema = record_of(typed.annotation).avro("shop.cart.event")
    values = data.draw(st.lists(typed.values, min_size=1, max_size=3))
    codec = RecordCodec(typed.annotation, schema)
    path = tmp_path / "block.avro"
    path.write_bytes(b"".join(container(json.dumps(schema), [codec.encode(value) for value in values])))
    if not schema["fields"]:
        return
    source = f"file({literal(str(path))}, 'Avro', {literal(structure(schema))})"
    columns = ", ".join(f"{quoted(f['name'])} {column_type(f['type'])}" for f in schema["fields"])
    store.command("DROP TABLE IF EXISTS generated")
    store.command(
        f"CREATE TABLE generated ({columns}) ENGINE = MergeTree ORDER BY tuple() SETTINGS share_nested_offsets = 0"
    )
    store.command(f"INSERT INTO generated SELECT * FROM {source}")
    assert store.query("SELECT count() FROM generated") == [(len(values),)]
