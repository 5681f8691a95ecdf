"""The test kit for projections: what events come to, without a log and without ClickHouse."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar, overload

from magnetar.schemas import Event, Meta
from magnetar.schemas.derivation import RecordCodec, record_schema

from .contracts import codec_of, contract_of
from .declarations import Fold, Rows, Sql
from .kit_keyed import SOME_TIME, FoldedRow, Occurred, check_merges, folded_rows, written

F = TypeVar("F", bound=Fold)
R = TypeVar("R", bound=Rows)


@overload
def project(
    projection: type[F], *, events: Iterable[Event], id: str = "1", at: datetime = SOME_TIME, actor: str | None = None
) -> F | None: ...
@overload
def project(
    projection: type[R], *, events: Iterable[Event], id: str = "1", at: datetime = SOME_TIME, actor: str | None = None
) -> tuple[R, ...]: ...
@overload
def project(
    projection: type[F], *, events: Iterable[Occurred], actor: str | None = None
) -> tuple[FoldedRow[F], ...]: ...
def project(
    projection: Any,
    *,
    events: Iterable[Event | Occurred],
    id: str = "1",
    at: datetime = SOME_TIME,
    actor: str | None = None,
) -> Any:
    """What the events of one aggregate come to, one after the other: a fold's row, or None; the rows of a Rows.

    A fold by window or by field takes `Occurred(event, id=…, at=…)`, since its rows are of several aggregates and
    times. It gives each row as a FoldedRow, as the view has it, as if all events were on one partition; a fold by field
    is folded once more with a partition for each aggregate, whose rows are merged.

    Each is projected twice, and once with every row written and read back as a table has it. Raises AssertionError if
    that makes a difference, which is how a clock or a random source shows; if the projection does not take an event; if
    an event or a row could not be stored; if `merges` does not fit what `apply` does.
    What the projection raises comes out as it is. Raises TypeError for an Sql, which is a query.
    """
    given = tuple(events)
    if issubclass(projection, Sql):
        raise TypeError(
            f"{projection.__name__} is an Sql: what its query gives, ClickHouse says. Test it in an embedded pipeline."
        )
    contract = contract_of(projection)
    occurred = [each for each in given if isinstance(each, Occurred)]
    if len(occurred) != (0 if contract.keyed is None else len(given)):
        raise AssertionError(
            f"{projection.__name__} has rows by window or by field, of several aggregates and times: say of each event "
            "which, with Occurred(event, id=…, at=…)."
            if contract.keyed is not None
            else f"{projection.__name__} has rows of one aggregate at a time: give its events as they are, and its id."
        )
    history = tuple(each.event if isinstance(each, Occurred) else each for each in given)
    for event in history:
        if type(event) not in contract.events:
            raise AssertionError(f"{projection.__name__} does not take {event!r}.")
        _check_event(event)

    def through(*, stored: bool) -> Any:
        if contract.keyed is not None:
            return folded_rows(projection, occurred, actor, stored=stored)
        metas = [Meta(id=id, version=version, at=at, actor=actor) for version in range(1, len(history) + 1)]
        return (_folded if issubclass(projection, Fold) else _rows)(projection, history, metas, stored=stored)

    found = through(stored=False)
    for again in (through(stored=False), through(stored=True)):
        if again != found:
            raise AssertionError(
                f"{projection.__name__} gave, for the same events,\n  {found!r}\nand then\n  {again!r}\n"
                "It has to be pure: no clock, no random source, nothing that it remembers."
            )
    if contract.keyed is not None and contract.keyed.by:
        check_merges(projection, occurred, actor)
    return found


def _folded(cls: type[Any], events: Sequence[Event], metas: Sequence[Meta], *, stored: bool) -> Any:
    codec, takes_meta, row = codec_of(cls), contract_of(cls).takes_meta, None
    for event, meta in zip(events, metas, strict=True):
        before = cls() if row is None else row
        row = before.apply(event, meta) if takes_meta else before.apply(event)
        if row is not None:
            made = written(codec, row, cls)
            row = codec.decode(io.BytesIO(made)) if stored else row
    return row


def _rows(cls: type[Any], events: Sequence[Event], metas: Sequence[Meta], *, stored: bool) -> Any:
    codec, takes_meta, rows = codec_of(cls), contract_of(cls).takes_meta, list[Any]()
    for event, meta in zip(events, metas, strict=True):
        for row in (cls.project(event, meta) if takes_meta else cls.project(event)) or ():
            made = written(codec, row, cls)
            rows.append(codec.decode(io.BytesIO(made)) if stored else row)
    return tuple(rows)


def _check_event(event: Event) -> None:
    try:
        RecordCodec(type(event), record_schema(type(event), namespace="kit")).encode(event)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{event!r} could not stand in the log: {error}.") from error
