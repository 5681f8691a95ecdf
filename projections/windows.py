"""Windows of event time, and what else may be part of a fold's key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from magnetar.schemas import DeclarationError, Event
from magnetar.schemas.annotations import hints_of
from magnetar.schemas.commit import Fact
from magnetar.schemas.derivation import Json
from magnetar.schemas.signatures import shown

from .columns import column_type

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

WINDOWS_MAX: Final = 1000
"""So many hopping windows an event is in at most: it is folded into a row of each."""

MERGES: Final[Mapping[Callable[..., Any], str]] = {sum: "sum", min: "min", max: "max"}
"""How rows of one key are merged in the view: Python's function, and ClickHouse's."""

_SUMMED: Final = re.compile(r"(Nullable\()?(Int|Float|Decimal|Bool)")
"""The columns that ClickHouse adds up."""

_IN_ORDER: Final = (
    "Where the order counts, keep it in a second aggregate, whose id is what the rows are by: send that one a command "
    "for each event."
)


class Window(NamedTuple):
    """Windows of event time, as part of a fold's key: of `size`, beginning `every` so often.

    Without `every` they tumble: one begins where the one before ends, and each event is in one. With a smaller `every`
    they hop, and each event is in several. They begin at whole multiples since 1970, UTC. `at` is the field of the
    events that has their time; without it, it is the command's time. An event that comes when the newest time that its
    partition has seen is `grace` or more behind the window's end is late: it is folded all the same, and counted.
    """

    size: timedelta
    every: timedelta | None = None
    at: str | None = None
    grace: timedelta = timedelta()

    @property
    def step_us(self) -> int:
        """Microseconds from one beginning to the next."""
        return (self.every or self.size) // _MICROSECOND

    @property
    def size_us(self) -> int:
        """Microseconds from a beginning to its end."""
        return self.size // _MICROSECOND

    def starts_us(self, at_us: int) -> range:
        """The beginnings of the windows that a time is in, in microseconds since 1970, in their order."""
        last = at_us // self.step_us * self.step_us
        first = (at_us - self.size_us) // self.step_us * self.step_us + self.step_us
        return range(first, last + 1, self.step_us)

    def is_late(self, start_us: int, newest_us: int) -> bool:
        """Whether the window was over when an event came, by the newest time that was seen before."""
        return start_us + self.size_us + self.grace // _MICROSECOND <= newest_us


class Place(NamedTuple):
    """The key of a row, and where its window begins, in microseconds since 1970; 0 without one."""

    key: str
    start_us: int


def micros(at: datetime) -> int:
    """A time in microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


class Keyed(NamedTuple):
    """What a fold's rows are told apart by, where it is not the aggregate's id alone."""

    window: Window | None
    by: tuple[str, ...]
    """Fields of the events, and of the fold; without any, it is the aggregate's id."""
    merges: dict[str, str]
    """How the fields of rows from several partitions are merged; none without `by`."""

    def time_us(self, fact: Fact) -> int:
        """The time of an event, in microseconds since 1970."""
        if self.window is None or self.window.at is None:
            return fact.at_us
        return micros(getattr(fact.event, self.window.at))

    def name(self, fact: Fact) -> str:
        """What its rows are told apart by besides the window, as text."""
        if not self.by:
            return fact.aggregate_id
        return msgspec.json.encode([getattr(fact.event, field) for field in self.by]).decode()

    def places(self, fact: Fact) -> list[Place]:
        """The rows that an event goes into."""
        name = self.name(fact)
        if self.window is None:
            return [Place(name, 0)]
        return [Place(f"{start} {name}", start) for start in self.window.starts_us(self.time_us(fact))]

    def seeded(self, seed: Any, fact: Fact) -> Any:
        """The row that a key's first event finds: what it is by is set."""
        return seed.replace(**{field: getattr(fact.event, field) for field in self.by}) if self.by else seed

    def is_late(self, place: Place, newest_us: int) -> bool:
        """Whether the row's window was over when an event came, by the newest time that was seen before."""
        return self.window is not None and self.window.is_late(place.start_us, newest_us)


def read_keyed(cls: type[Any], events: tuple[type[Event], ...], record: Json) -> Keyed | None:
    """What a fold's class says of its key; None for the aggregate's id. `record` has its fields. Raises
    DeclarationError."""
    window, by, merges = (_said(cls, name, default) for name, default in (("window", None), ("by", ()), ("merges", {})))
    if window is None and not by and not merges:
        return None
    if window is not None:
        _check_window(cls, window, events)
    _check_by(cls, by, merges, events)
    if by:
        _check_merges(cls, by, merges, record)
    return Keyed(window, tuple(by), {name: MERGES[how] for name, how in merges.items()})


def _said(cls: type[Any], name: str, default: Any) -> Any:
    """A class's own value, and not its field of that name."""
    return default if name in cls.__struct_fields__ else getattr(cls, name)


def _check_window(cls: type[Any], window: Any, events: tuple[type[Event], ...]) -> None:
    if not isinstance(window, Window) or window.size <= timedelta() or not 0 < window.step_us <= window.size_us:
        raise DeclarationError(
            f"{cls.__qualname__}.window is {window!r}.",
            cure="Write `window = Window(timedelta(hours=1))`; `every` is not longer than the size.",
        )
    if window.step_us % 1000:
        raise DeclarationError(
            f"{cls.__qualname__}.window begins every {window.step_us} microseconds.",
            cure="A row says where its window begins in milliseconds: take whole ones.",
        )
    if (count := -(-window.size_us // window.step_us)) > WINDOWS_MAX:
        raise DeclarationError(
            f"{cls.__qualname__}.window would put each event into {count:,} rows.",
            cure=f"Let a new one begin less often: an event is in {WINDOWS_MAX:,} windows at most.",
        )
    for event in events:
        if window.at is not None and hints_of(event).get(window.at) is not datetime:
            raise DeclarationError(
                f"{cls.__qualname__}.window is of {window.at!r}, and {event.__qualname__} has no such time.",
                cure="Name a field that is a datetime in all its events; without `at` it is the command's time.",
            )


def _check_by(cls: type[Any], by: Any, merges: Any, events: tuple[type[Event], ...]) -> None:
    if isinstance(by, str) or not all(isinstance(name, str) for name in by):
        raise DeclarationError(f"{cls.__qualname__}.by is {by!r}.", cure='It is a tuple of names: `by = ("origin",)`.')
    for name in by:
        if lacking := [each for each in (cls, *events) if name not in each.__struct_fields__]:
            raise DeclarationError(
                f"{cls.__qualname__} is by {name!r}, which {lacking[0].__qualname__} has no field of.",
                cure="What a fold is by is a field of its own and of all its events.",
            )
    if merges and not by:
        raise DeclarationError(
            f"{cls.__qualname__} has `merges`, and its rows are of one aggregate each, on one partition.",
            cure="Say what it is by: `by = (…)`; or leave `merges` away.",
        )


def _check_merges(cls: type[Any], by: Any, merges: Any, record: Json) -> None:
    others = [name for name in cls.__struct_fields__ if name not in by]
    if unknown := [name for name in merges if name not in others]:
        raise DeclarationError(
            f"{cls.__qualname__}.merges has {unknown[0]!r}, which is "
            + ("what its rows are told apart by." if unknown[0] in by else "no field of it."),
            cure=f"Its other fields are: {', '.join(others) or 'none'}.",
        )
    if lacking := [name for name in others if name not in merges]:
        raise DeclarationError(
            f"{cls.__qualname__} is by {', '.join(by)}, and its rows are merged over the partitions; `merges` does "
            f"not say how for {lacking[0]!r}.",
            cure=f"Give each other field one of sum, min and max: `merges = {{{lacking[0]!r}: max}}`. {_IN_ORDER}",
        )
    columns = {field["name"]: column_type(field["type"]) for field in record["fields"]}
    for name, how in merges.items():
        if not callable(how) or how not in MERGES:
            raise DeclarationError(
                f"{cls.__qualname__}.merges has {getattr(how, '__name__', repr(how))} for {name!r}, which ClickHouse "
                "cannot merge rows by.",
                cure=f"It is one of sum, min and max. {_IN_ORDER}",
            )
        if how is sum and not _SUMMED.match(columns[name]):
            kind = shown(hints_of(cls)[name])
            raise DeclarationError(
                f"{cls.__qualname__}.merges has sum for {name!r}, which is {kind}, and no number.",
                cure="Merge it by min or max, or make a number of it.",
            )
