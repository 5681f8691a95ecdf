"""The test kit for folds by window of time or by fields of their events: what rows the view has of them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from magnetar.schemas import Event
from magnetar.schemas.commit import Fact, meta_of, time_of
from magnetar.schemas.derivation import RecordCodec
from magnetar.schemas.framing import write_long

from .contracts import codec_of, contract_of
from .windows import Keyed, Place, micros

F = TypeVar("F")

SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The events' time where a test gives none."""

_MERGED: Final[Mapping[str, Callable[[Iterable[Any]], Any]]] = {"sum": sum, "min": min, "max": max}


class Occurred(NamedTuple):
    """An event among those of several aggregates."""

    event: Event
    id: str = "1"
    """Of its aggregate."""
    at: datetime = SOME_TIME
    """When its command was sent."""


class FoldedRow(NamedTuple, Generic[F]):
    """A row as the view of a fold by window or by field has it."""

    row: F
    id: str | None = None
    """Of its aggregate; None where rows are by fields, of several aggregates."""
    window: datetime | None = None
    """Where its window begins."""
    late: int = 0
    """How many of its events came when the window was over."""


class _State(NamedTuple):
    row: Any
    """None for one that is deleted."""
    late: int


def folded_rows(
    cls: type[Any], occurred: Sequence[Occurred], actor: str | None, *, stored: bool
) -> tuple[FoldedRow[Any], ...]:
    """The rows of a keyed fold as if one partition had all aggregates, in the order in which their keys came first."""
    keyed = _keyed(cls)
    return tuple(_view(keyed, [_partition(cls, keyed, _facts(occurred, actor), stored=stored)]).values())


def check_merges(cls: type[Any], occurred: Sequence[Occurred], actor: str | None) -> None:
    """Compare the rows with what the view merges of a partition for each aggregate.

    Which event is late differs: each partition goes by what it has seen itself. Raises AssertionError if the rows do:
    then `merges` does not fit what `apply` does.
    """
    keyed, facts = _keyed(cls), _facts(occurred, actor)
    alone = [[fact for fact in facts if fact.aggregate_id == id] for id in dict.fromkeys(each.id for each in occurred)]
    one, several = (
        _view(keyed, [_partition(cls, keyed, part, stored=False) for part in parts]) for parts in ([facts], alone)
    )
    for place in {**one, **several}:
        together, merged = (each[place].row if place in each else None for each in (one, several))
        if not _is_same(together, merged):
            raise AssertionError(
                f"{cls.__name__} gave, of events that are all on one partition,\n  {together!r}\nand merged from a "
                f"partition for each aggregate\n  {merged!r}\nIts `merges` does not fit what `apply` does."
            )


def _keyed(cls: type[Any]) -> Keyed:
    return contract_of(cls).keyed or Keyed(None, (), {})


def _facts(occurred: Iterable[Occurred], actor: str | None) -> list[Fact]:
    versions: dict[str, int] = {}
    facts: list[Fact] = []
    for number, (event, id, at) in enumerate(occurred, 1):
        versions[id] = versions.get(id, 0) + 1
        facts.append(Fact(number, id, versions[id], b"", write_long(micros(at)), actor, None, event))
    return facts


def _partition(
    cls: type[Any], keyed: Keyed, facts: Sequence[Fact], *, stored: bool
) -> dict[Place, tuple[Fact, _State]]:
    """What one partition's events come to, in their order: by place, its first event, and its state."""
    codec, takes_meta, newest = codec_of(cls), contract_of(cls).takes_meta, 0
    found: dict[Place, tuple[Fact, _State]] = {}
    for fact in facts:
        for place in keyed.places(fact):
            first, state = found.get(place, (fact, _State(None, 0)))
            before = keyed.seeded(cls(), fact) if state.row is None else state.row
            row = before.apply(fact.event, meta_of(fact)) if takes_meta else before.apply(fact.event)
            if row is not None:
                made = written(codec, row, cls)
                row = codec.decode(io.BytesIO(made)) if stored else row
            found[place] = first, _State(row, state.late + keyed.is_late(place, newest))
        newest = max(newest, keyed.time_us(fact))
    return found


def _view(keyed: Keyed, partitions: Sequence[dict[Place, tuple[Fact, _State]]]) -> dict[Place, FoldedRow[Any]]:
    """What the view makes of the partitions' tables: rows of one key are merged, what is deleted is not shown."""
    found: dict[Place, FoldedRow[Any]] = {}
    for place in dict.fromkeys(place for partition in partitions for place in partition):
        parts = [partition[place] for partition in partitions if place in partition]
        states = [state for _, state in parts if state.row is not None]
        if states:
            row = states[0].row
            for how, fields in ((how, _fields(keyed, how)) for how in _MERGED):
                row = row.replace(**{name: _MERGED[how](getattr(each.row, name) for each in states) for name in fields})
            id = None if keyed.by else parts[0][0].aggregate_id
            window = None if keyed.window is None else time_of(place.start_us)
            found[place] = FoldedRow(row, id, window, sum(state.late for state in states))
    return found


def _fields(keyed: Keyed, how: str) -> list[str]:
    return [name for name, merged in keyed.merges.items() if merged == how]


def _is_same(one: Any, other: Any) -> bool:
    """Floats that were added in another order are the same within rounding."""
    if one is None or other is None:
        return one is other
    return all(
        math.isclose(a, b, rel_tol=1e-9) if isinstance(a, float) else a == b
        for a, b in ((getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    )


def written(codec: RecordCodec, row: Any, cls: type[Any]) -> bytes:
    """A row as the table has it. Raises AssertionError if it cannot have it."""
    if type(row) is not cls:
        raise AssertionError(f"{cls.__name__} gave {row!r}, and not a {cls.__name__}.")
    try:
        return codec.encode(row)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{cls.__name__} gave {row!r}, which cannot be stored: {error}.") from error
