"""A slice of history in a scratch table: the rows that a projection has of the events of some time alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from magnetar.projections import Fold
from magnetar.projections.declarations import view_name
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.freshness import MIRROR
from magnetar.projections.progress import Ask
from magnetar.projections.scratch_rows import ScratchRows, scratch_table, write_rows
from magnetar.schemas import SettingsError

from .clock import Clock
from .control import TakesWishes, send_scratch
from .forking import bounds
from .log import Log
from .pipeline import Pipeline
from .scratch import Refused, Scratch
from .targets import projection_of, target_of


class Wanted(NamedTuple):
    """Which events of history."""

    since: datetime | None
    """From the first command on that is not earlier; None for the log's beginning."""
    until: datetime | None
    """Up to the last command that is not later; None for all that there is."""


class Sliced(NamedTuple):
    """A scratch table."""

    projection: str
    table: str
    """Its name."""
    rows: int
    refused: list[Refused]


class KeepingScratch:
    """The making of a scratch table, or its removal, as an errand of CarryingOut."""

    def __init__(self, pipeline: Pipeline, rows: ScratchRows) -> None:
        self._pipeline, self._rows = pipeline, rows

    def send(self, endpoint: Endpoint) -> list[str]:
        """See Errand."""
        return send_scratch(endpoint, self._pipeline, self._rows)

    def tell(self, projector: TakesWishes) -> None:
        """See Errand."""
        projector.keep_scratch(self._rows)

    def look(self, ask: Ask) -> bool:
        """See Errand: it is done when it is told."""
        del ask
        return True

    def other_code(self, ask: Ask) -> list[str]:
        """See Errand: the rows are made already."""
        del ask
        return []


def check(pipeline: Pipeline, name: str, wanted: Wanted) -> None:
    """Raise SettingsError for what has no rows of a slice."""
    target = target_of(pipeline, name)
    if target.projection == MIRROR:
        raise SettingsError(
            f"{name} is an aggregate: its events stand in its tables with their times.",
            cure="Ask for those of a time with WHERE, or name a projection that is a table.",
        )
    if wanted.since is not None and issubclass(projection_of(pipeline, name), Fold):
        raise SettingsError(
            f"{name} is a Fold: a row of events from {wanted.since.isoformat()} on would have begun in the middle of "
            "its history.",
            cure="Leave --since away: with --until alone you get its rows as of then. A Rows projection, or an "
            "incremental Sql, can have a slice with both ends.",
        )
    if wanted.since is not None and wanted.until is not None and wanted.since > wanted.until:
        raise SettingsError("--since is later than --until.", cure="Give the earlier time as --since.")


def sliced(
    pipeline: Pipeline,
    log: Log,
    data: Path,
    clock: Clock,
    name: str,
    wanted: Wanted,
    keep: Callable[[ScratchRows], None],
) -> Sliced:
    """Fill a scratch table with the rows that a projection has of a slice.

    1. Fills a table in an engine of its own, from the log. 2. Writes the rows to a file in the data folder. 3. Has
    `keep` make the pipeline's scratch table of it, as a whole, when this process has no engine open any more. The table
    that is shown is neither read nor written. Raises what `check`, the log, ClickHouse and `keep` raise.
    """
    check(pipeline, name, wanted)
    projection, aggregates = projection_of(pipeline, name), target_of(pipeline, name).aggregates
    first, then, _ = bounds(pipeline, log, aggregates, since=wanted.since, until=wanted.until)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=data, ignore_cleanup_errors=True) as folder:
        scratch = Scratch(pipeline, log, clock, Path(folder))
        try:
            scratch.fill(projection, aggregates, then, since=first)
            shown = scratch.show(projection, aggregates[0])
            count, columns = write_rows(scratch.store, shown, Path(folder))
            refused = scratch.refused(projection, examples=3)
        finally:
            scratch.close()
        keep(ScratchRows(view_name(projection), Path(folder).name, columns, f"{name}, {said(wanted)}"))
    return Sliced(name, scratch_table(pipeline.name, view_name(projection)), count, refused)


def said(wanted: Wanted) -> str:
    """A slice in words."""
    since = "from the beginning" if wanted.since is None else f"from {wanted.since.isoformat()}"
    return f"{since} to {'now' if wanted.until is None else wanted.until.isoformat()}"
