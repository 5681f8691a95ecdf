"""What cannot be declared: refused with the class, the field and the cure."""

import enum
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID, uuid4

import msgspec
import pytest
from magnetar.schemas import Command, DeclarationError, Event, Immutable, Precision, State
from magnetar.schemas.aggregate_schema import AggregateSchema


class Loose(msgspec.Struct):
    x: int


class Point(NamedTuple):
    x: int


@dataclass
class Data:
    x: int


class Untagged(Immutable):
    x: int


class Other(Immutable):
    x: int


class One(State, wire_name="Same"):
    pass


class Two(State, wire_name="Same"):
    pass


class Type(State, wire_name="type"):
    pass


class Joined(enum.Flag):
    A = 1


class Halves(enum.Enum):
    HALF = 0.5


class Unknown(enum.Enum):
    X = "_unknown"


Umlaut = enum.Enum("Umlaut", {"Ä": 1})


class Empty(enum.Enum):
    pass


class Fine(enum.Enum):
    X = "x"


REFUSED = {
    "a bare Decimal": (Decimal, r"Precision\(18, 2\)"),
    "any": (Any, "no Avro type"),
    "object": (object, "no Avro type"),
    "complex": (complex, "no Avro type"),
    "list": (list[int], r"could be changed in place.*`tuple\["),
    "sequence": (Sequence[int], r"could be changed in place.*`tuple\["),
    "set": (set[int], r"could be changed in place.*`frozenset\["),
    "dict": (dict[str, int], r"could be changed in place.*`Mapping\["),
    "ordered dict": (OrderedDict[str, int], r"could be changed in place.*`tuple\[tuple"),
    "deque": (deque[int], r"could be changed in place.*`tuple\["),
    "bytearray": (bytearray, "could be changed in place.*`bytes`"),
    "a list within": (tuple[list[int], ...], "could be changed in place"),
    "a struct that is not frozen": (Loose, "could be changed in place.*Derive it from Immutable"),
    "a tuple of what": (tuple, r"Say what is in it: `tuple\["),
    "no tuple at all": (tuple[()], "no Avro type"),
    "a named tuple": (Point, "no Avro type"),
    "a dataclass": (Data, "no Avro type"),
    "a mapping with numbers as keys": (Mapping[int, str], r"`tuple\[tuple\[int, str\], \.\.\.\]`"),
    "a set of mappings": (frozenset[Mapping[str, int]], "no Avro type"),
    "an optional tuple": (tuple[int, ...] | None, "the same as an empty one"),
    "an optional set": (frozenset[int] | None, "the same as an empty one"),
    "an optional mapping": (Mapping[str, int] | None, "the same as an empty one"),
    "an optional tuple within": (tuple[tuple[int, ...] | None, ...], "the same as an empty one"),
    "a union of scalars": (int | str, "union of int | str"),
    "a union of a scalar and a struct": (int | Untagged, "union of int | Untagged"),
    "a union of structs without tags": (Untagged | Other, "Untagged has no tag.*tag=True"),
    "a union of two of one name": (One | Two, "two branches called 'Same'"),
    "a branch called type": (One | Type, "called 'type'"),
    "a mixed literal": (Literal["a", 1], "values of one kind"),
    "a literal of bytes": (Literal[b"a"], "values of one kind"),
    "a flag": (Joined, "can be joined"),
    "an enum of floats": (Halves, "all str or all int"),
    "an enum without members": (Empty, "no members"),
    "an enum with our symbol": (Unknown, "'_unknown'"),
    "an enum with an umlaut": (Umlaut, "'Ä'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_type_without_avro_is_refused_when_the_class_is_declared(what: str) -> None:
    annotation, says = REFUSED[what]
    with pytest.raises(DeclarationError, match=f"(?s)(Bad.x|Bad).*{says}"):
        type("Bad", (Event,), {"__annotations__": {"x": annotation}, "__module__": __name__})


def uuid4_again() -> UUID:
    return uuid4()


DEFAULTS = {
    "of another type": (int, "one", "of its type"),
    "a text for a date": (date, "2020-01-01", "of its type"),
    "a time without a zone": (datetime, datetime(2020, 1, 1), "without a time zone"),
    "that would be rounded": (Annotated[Decimal, Precision(3, 1)], Decimal("1.25"), "does not fit"),
    "that is not the one of null": (int | None, 5, "Make the default None"),
    "made anew": (UUID, msgspec.field(default_factory=uuid4_again), "made anew each time"),
    "a list": (tuple[int, ...], [], "of its type"),
}


@pytest.mark.parametrize("what", DEFAULTS)
def test_a_default_that_is_none_is_refused(what: str) -> None:
    annotation, default, says = DEFAULTS[what]
    with pytest.raises(DeclarationError, match=rf"Bad\.x.*{says}"):
        type("Bad", (Event,), {"__annotations__": {"x": annotation}, "x": default, "__module__": __name__})


def test_a_struct_within_itself_is_refused() -> None:
    with pytest.raises(DeclarationError, match="Node is within itself"):

        class Found(Event):
            node: Node


class Node(Immutable):
    children: "tuple[Node, ...]" = ()


@pytest.mark.parametrize("base", [Immutable, State, Command])
def test_names_are_checked_in_every_struct(base: Any) -> None:
    with pytest.raises(DeclarationError, match=r"field Bad\._x"):
        type("Bad", (base,), {"__annotations__": {"_x": int}, "__module__": __name__})
    with pytest.raises(DeclarationError, match="class Bäd"):
        type("Bäd", (base,), {"__annotations__": {}, "__module__": __name__})


@pytest.mark.parametrize("base", [Immutable, State])
def test_what_could_be_changed_is_refused_in_every_struct(base: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.x is a list"):
        type("Bad", (base,), {"__annotations__": {"x": list[int]}, "__module__": __name__})


def test_a_name_that_is_not_there_yet_is_looked_at_when_the_aggregate_is_declared() -> None:
    class Early(Event):
        later: "Later"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DeclarationError, match=r"'Later' of .*Early cannot be resolved"):
        AggregateSchema("c", "A", commands=[], events=[Early], rejections=[])


def test_two_classes_with_one_wire_name_are_refused() -> None:
    class Gone(Event, wire_name="Departed"):
        pass

    class Departed(Event):
        pass

    with pytest.raises(DeclarationError, match=r"two types called 'Departed'.*Departed and .*Gone.*Rename"):
        AggregateSchema("c", "A", commands=[], events=[Departed, Gone], rejections=[])


def test_an_event_called_type_is_refused() -> None:
    class Kind(Event, wire_name="type"):
        pass

    with pytest.raises(DeclarationError, match="called 'type' on the wire"):
        AggregateSchema("c", "A", commands=[], events=[Kind], rejections=[])


@pytest.mark.parametrize(("digits", "decimals"), [(0, 0), (77, 0), (3, 4), (3, -1)])
def test_a_precision_that_no_column_has_is_refused(digits: int, decimals: int) -> None:
    with pytest.raises(DeclarationError, match="Precision"):
        Precision(digits, decimals)


def test_other_spellings_are_not_refused() -> None:
    for annotation in (
        Annotated[Fine | None, "doc"],
        Literal["a"] | None,
        Annotated[Decimal, "doc", Precision(5)] | None,
        tuple[int | None, ...],
        Mapping[str, Mapping[str, Fine | None]],
    ):
        type("Good", (Event,), {"__annotations__": {"x": annotation}, "__module__": __name__})
