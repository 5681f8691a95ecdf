"""The test kit for projections: what events come to, without a log and without ClickHouse."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, overload

from magnetar.schemas import Event, Meta
from magnetar.schemas.derivation import RecordCodec, record_schema

from .contracts import codec_of, contract_of
from .declarations import Fold, Rows, Sql

F = TypeVar("F", bound=Fold)
R = TypeVar("R", bound=Rows)

SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The events' time where a test gives none."""


@overload
def project(
    projection: type[F], *, events: Iterable[Event], id: str = "1", at: datetime = SOME_TIME, actor: str | None = None
) -> F | None: ...
@overload
def project(
    projection: type[R], *, events: Iterable[Event], id: str = "1", at: datetime = SOME_TIME, actor: str | None = None
) -> tuple[R, ...]: ...
def project(
    projection: Any, *, events: Iterable[Event], id: str = "1", at: datetime = SOME_TIME, actor: str | None = None
) -> Any:
    """What the events of one aggregate come to, one after the other: a fold's row, or None; the rows of a Rows.

    Each is projected twice, and once with every row written and read back as a table has it. Raises AssertionError if
    that makes a difference, which is how a clock or a random source shows; if the projection does not take an event; if
    an event or a row could not be stored; for a fold by window or by field, which only an embedded pipeline can show.
    What the projection raises comes out as it is. Raises TypeError for an Sql, which is a query.
    """
    history = tuple(events)
    if issubclass(projection, Sql):
        raise TypeError(
            f"{projection.__name__} is an Sql: what its query gives, ClickHouse says. Test it in an embedded pipeline."
        )
    contract = contract_of(projection)
    if contract.keyed is not None:
        raise AssertionError(
            f"{projection.__name__} has rows by window or by field, of more than one aggregate: test it in an embedded "
            "pipeline, whose view merges them."
        )
    for event in history:
        if type(event) not in contract.events:
            raise AssertionError(f"{projection.__name__} does not take {event!r}.")
        _check_event(event)
    metas = [Meta(id=id, version=version, at=at, actor=actor) for version in range(1, len(history) + 1)]
    through = _folded if issubclass(projection, Fold) else _rows
    found = through(projection, history, metas, stored=False)
    for again in (through(projection, history, metas, stored=False), through(projection, history, metas, stored=True)):
        if again != found:
            raise AssertionError(
                f"{projection.__name__} gave, for the same events,\n  {found!r}\nand then\n  {again!r}\n"
                "It has to be pure: no clock, no random source, nothing that it remembers."
            )
    return found


def _folded(cls: type[Any], events: Sequence[Event], metas: Sequence[Meta], *, stored: bool) -> Any:
    codec, takes_meta, row = codec_of(cls), contract_of(cls).takes_meta, None
    for event, meta in zip(events, metas, strict=True):
        before = cls() if row is None else row
        row = before.apply(event, meta) if takes_meta else before.apply(event)
        if row is not None:
            written = _written(codec, row, cls)
            row = codec.decode(io.BytesIO(written)) if stored else row
    return row


def _rows(cls: type[Any], events: Sequence[Event], metas: Sequence[Meta], *, stored: bool) -> Any:
    codec, takes_meta, rows = codec_of(cls), contract_of(cls).takes_meta, list[Any]()
    for event, meta in zip(events, metas, strict=True):
        for row in (cls.project(event, meta) if takes_meta else cls.project(event)) or ():
            written = _written(codec, row, cls)
            rows.append(codec.decode(io.BytesIO(written)) if stored else row)
    return tuple(rows)


def _written(codec: RecordCodec, row: Any, cls: type[Any]) -> bytes:
    if type(row) is not cls:
        raise AssertionError(f"{cls.__name__} gave {row!r}, and not a {cls.__name__}.")
    try:
        return codec.encode(row)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{cls.__name__} gave {row!r}, which cannot be stored: {error}.") from error


def _check_event(event: Event) -> None:
    try:
        RecordCodec(type(event), record_schema(type(event), namespace="kit")).encode(event)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{event!r} could not stand in the log: {error}.") from error
