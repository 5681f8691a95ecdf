"""A fork: a projection's table as of another time or by other code, beside what it is, in scratch tables."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from magnetar.projections import Fold, Rows, Sql
from magnetar.projections.declarations import has_table
from magnetar.projections.freshness import MIRROR
from magnetar.projections.snapshot import identity_of
from magnetar.schemas import SettingsError
from magnetar.schemas.commit import read_time

from .clock import Clock
from .diffing import TableDifference, side_of, with_rows
from .history import log_of
from .log import Log
from .pipeline import Pipeline
from .scratch import Scratch, scratch_folder
from .targets import projection_of, target_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Fork(NamedTuple):
    """What is to be filled."""

    name: str
    """The pipeline's projection."""
    until: datetime | None
    """Up to the last command that is not later; None for all that there is."""
    other: type[Any] | None
    """What is filled beside it; None for the same one, as of now."""


def forked(pipeline: Pipeline, log: Log, clock: Clock, fork: Fork, *, examples: int) -> TableDifference:
    """Fill two tables, and compare them. Nothing is written to the log or to the pipeline's tables.

    Raises SettingsError for what has no table of its own, or cannot be compared.
    """
    target = target_of(pipeline, fork.name)
    if target.projection == MIRROR:
        raise SettingsError(f"{fork.name} is an aggregate.", cure="Name a projection that is a table.")
    projection = projection_of(pipeline, target.projection)
    other = projection if fork.other is None else fork.other
    if identity_of(other) != identity_of(projection):
        raise SettingsError(
            f"{other.__name__} and {fork.name} are not told apart by the same: their rows cannot be compared.",
            cure="Give one of the same kind, and with the same key.",
        )
    aggregates = tuple(dict.fromkeys([*target.aggregates, *pipeline.aggregates_of(other)]))
    _, then, now = bounds(pipeline, log, aggregates, until=fork.until)
    with scratch_folder() as folder:
        scratch = Scratch(pipeline, log, clock, folder)
        try:
            before = scratch.fill(projection, target.aggregates, then)
            until = now if fork.other is None else then
            after = scratch.fill(other, pipeline.aggregates_of(other), until, generation=2)
            found = TableDifference(fork.name, has_changed=False, is_fork=True)
            found.refused = scratch.refused(other, examples=examples, generation=2)
            sides = side_of(scratch.store, projection, before), side_of(scratch.store, other, after)
            return with_rows(found, scratch.store, projection, *sides, examples=examples)
        finally:
            scratch.close()


class Bounds(NamedTuple):
    """Numbers of commits, by aggregate and partition."""

    first: dict[tuple[str, int], int]
    """The first whose command is not earlier than `since`."""
    then: dict[tuple[str, int], int]
    """The last whose command is not later than `until`."""
    now: dict[tuple[str, int], int]
    """The last of all."""


def bounds(
    pipeline: Pipeline,
    log: Log,
    aggregates: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Bounds:
    """Where a slice of history begins and ends, in one reading of the log. Without a time, where that does."""
    found = Bounds({}, {}, {})
    since_us, until_us = (None if each is None else micros(each) for each in (since, until))
    for place, number, at in commit_times(pipeline, log, aggregates):
        found.now[place] = number
        if since_us is None or at >= since_us:
            found.first.setdefault(place, number)
        if until_us is None or at <= until_us:
            found.then[place] = number
    return found


def commit_times(pipeline: Pipeline, log: Log, aggregates: Sequence[str]) -> Iterator[tuple[tuple[str, int], int, int]]:
    """Of every commit: aggregate and partition, its number, and its command's time in microseconds since 1970."""
    for aggregate in aggregates:
        source = pipeline.events_of(aggregate)
        for partition in range(source.partitions):
            for message, number in log_of(log, source.topic, partition):
                yield (aggregate, partition), number, read_time(message.payload)[0]


def micros(at: datetime) -> int:
    """A time in microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def load_projection(named: str) -> type[Any]:
    """Import `package.module:Class`. Raises SettingsError for what is no projection with a table."""
    module_name, _, name = named.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ImportError as error:
        raise SettingsError(f"{module_name} cannot be imported: {error}.", cure="Write module:Class.") from error
    if not (isinstance(found, type) and issubclass(found, Rows | Fold | Sql) and has_table(found)):
        raise SettingsError(f"{named} is no projection that is a table.", cure="Write module:Class of such a one.")
    return found
