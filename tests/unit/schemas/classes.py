"""Message classes that nobody wrote: random fields, random types, nested as deep as they may be."""

import enum
import types
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin
from uuid import UUID

from hypothesis import strategies as st
from magnetar.schemas import Event, Immutable, Precision, State

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
LONGS = st.integers(-(2**63), 2**63 - 1)


class Typed(NamedTuple):
    """An annotation, and values of it."""

    annotation: Any
    values: st.SearchStrategy[Any]
    is_hashable: bool = True
    is_container: bool = False


def of(generic: Any, *parts: Any) -> Any:
    """`generic[parts]`, which type checkers would take for an annotation."""
    return generic[parts]


@st.composite
def decimals(draw: Any) -> Typed:
    digits = draw(st.integers(1, 76))
    precision = Precision(digits, draw(st.integers(0, digits)))
    unscaled = st.integers(-(10**digits) + 1, 10**digits - 1)
    return Typed(
        Annotated[Decimal, precision],
        unscaled.map(lambda n: Decimal((n < 0, tuple(map(int, str(abs(n)))), -precision.decimals))),
    )


@st.composite
def enums(draw: Any) -> Typed:
    names = draw(st.lists(NAMES.filter(lambda n: n != "mro"), min_size=1, max_size=4, unique=True))
    values = draw(st.sampled_from([names, [f"{name} ." for name in names], list(range(len(names)))]))
    made = enum.Enum("Kind", dict(zip(names, values, strict=True)))  # type: ignore[misc]
    return Typed(made, st.sampled_from(list(made)))


@st.composite
def literals(draw: Any) -> Typed:
    kind = draw(st.sampled_from([TEXT, LONGS, st.booleans()]))
    values = tuple(draw(st.lists(kind, min_size=1, max_size=3, unique=True)))
    return Typed(Literal[values], st.sampled_from(values))


SCALARS = st.one_of(
    st.sampled_from(
        [
            Typed(bool, st.booleans()),
            Typed(int, LONGS),
            Typed(float, st.floats(allow_nan=False)),
            Typed(str, TEXT),
            Typed(bytes, st.binary(max_size=8)),
            Typed(date, st.dates()),
            Typed(datetime, st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)),
            Typed(time, st.times()),
            Typed(timedelta, st.timedeltas(timedelta(microseconds=-(2**63)), timedelta(microseconds=2**63 - 1))),
            Typed(UUID, st.uuids()),
        ]
    ),
    decimals(),
    enums(),
    literals(),
)


@st.composite
def structs(draw: Any, parts: Any, base: type[Any] = Immutable, name: Any = NAMES) -> Typed:
    """A struct class of drawn fields, some of them with defaults, some under another wire name."""
    fields = draw(st.lists(st.tuples(NAMES, parts), max_size=4, unique_by=lambda pair: pair[0]))
    fields = [(name, typed) for name, typed in fields if name not in ("replace", "type", "mro")]
    annotations = {name: typed.annotation for name, typed in fields}
    first_default = draw(st.integers(0, len(fields)))
    body: dict[str, Any] = {"__annotations__": annotations, "__module__": __name__}
    for field, typed in fields[first_default:]:
        body[field] = None if is_optional(typed.annotation) else draw(typed.values)
    made = types.new_class(draw(name), (base,), {}, lambda namespace: namespace.update(body))
    values = st.builds(made, **{name: typed.values for name, typed in fields})
    return Typed(made, values, all(typed.is_hashable for _, typed in fields))


def is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and types.NoneType in get_args(annotation)


@st.composite
def unions(draw: Any, parts: Any) -> Typed:
    names = iter(draw(st.lists(NAMES.filter(lambda n: n != "type"), min_size=2, max_size=3, unique=True)))
    branches = [draw(structs(parts, State, st.just(name))) for name in names]
    annotation = branches[0].annotation
    for branch in branches[1:]:
        annotation |= branch.annotation
    return Typed(annotation, st.one_of([b.values for b in branches]), all(b.is_hashable for b in branches))


def optional(typed: Typed) -> Typed:
    if typed.is_container or is_optional(typed.annotation):
        return typed
    return Typed(typed.annotation | None, st.none() | typed.values, typed.is_hashable)


@st.composite
def fixed_tuples(draw: Any, parts: Any) -> Typed:
    items = draw(st.lists(parts, min_size=1, max_size=3))
    return Typed(
        of(tuple, *(item.annotation for item in items)),
        st.tuples(*(item.values for item in items)),
        all(item.is_hashable for item in items),
    )


def around(parts: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """The types that hold other types."""
    return st.one_of(
        parts.map(optional),
        parts.map(
            lambda t: Typed(
                of(tuple, t.annotation, ...), st.lists(t.values, max_size=3).map(tuple), t.is_hashable, True
            )
        ),
        parts.filter(lambda t: t.is_hashable).map(
            lambda t: Typed(of(frozenset, t.annotation), st.frozensets(t.values, max_size=3), True, True)
        ),
        parts.map(
            lambda t: Typed(of(Mapping, str, t.annotation), st.dictionaries(TEXT, t.values, max_size=3), False, True)
        ),
        fixed_tuples(parts),
        structs(parts),
        unions(parts),
    )


TYPES = st.recursive(SCALARS, around, max_leaves=5)
EVENTS = structs(TYPES, Event, st.just("Happened"))
"""Event classes, with values of them."""
