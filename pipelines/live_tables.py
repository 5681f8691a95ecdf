"""What is in a projection's table that is shown: how far it is, and its rows as of there, in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from magnetar.projections import Sql
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.progress import fingerprints
from magnetar.projections.query import Answers
from magnetar.projections.row_difference import Side
from magnetar.projections.snapshot import (
    Until,
    columns_of,
    in_file,
    is_told_apart_alike,
    progress_of,
    rows_shown,
    shown_query,
)
from msgspec.json import decode

from .pipeline import Pipeline
from .rebuild_status import generations_of, table_names
from .sampling import Sample
from .targets import Target, projection_of

_TRIES: Final = 5


class Snapshot(NamedTuple):
    """The rows of a table as they were at some moment."""

    side: Side | None
    """None if the projection has no table yet."""
    until: Until
    """How far it was: of what is behind that, nothing is in the rows."""
    has_changed: bool
    """Whether the projection's declaration is another one than that which has filled the table."""
    is_exact: bool = True
    """Whether the rows are as of there to the commit; otherwise they may have some more."""
    not_compared: int | None = None
    """How many rows there are, if they are not told apart as the projection's are now; there is no side then."""


class LiveTables:
    """The tables of a data folder, asked through whoever has them open."""

    def __init__(self, pipeline: Pipeline, folder: Path, *, sample: int | None, server: Endpoint | None = None) -> None:
        """`sample`: so many commits of each aggregate, see Sample; None for all."""
        self._pipeline = pipeline
        self._answers = Answers(folder, server)
        self._sample = sample

    def close(self) -> None:
        """Let go of the folder's engine, where this process has opened it: it can have one open only."""
        self._answers.close()

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [decode(line) for line in self._answers.answer(sql, "JSONEachRow").splitlines()]

    def snapshot(self, target: Target, file: Path) -> Snapshot:
        """Write a table's rows to a file, as of the commit that each partition is at.

        Only a fold's and a Rows' rows say of which commit they are. The groups of an Sql are asked for again, a few
        times, if some came in meanwhile.
        """
        context = self._pipeline.name
        projection = projection_of(self._pipeline, target.projection)
        generation = generations_of(self.ask, self._pipeline, target.name).shown
        (table,) = table_names(self._pipeline, target, generation)
        found = fingerprints(self.ask, context).get(table)
        columns = columns_of(self.ask, context, projection, generation)
        if found is None or not columns:
            return Snapshot(None, self._until(Target(MIRROR, target.aggregates), None), has_changed=True)
        if not is_told_apart_alike(self.ask, context, projection, generation):
            until, rows = self._until(target, generation), rows_shown(self.ask, context, projection)
            return Snapshot(None, until, has_changed=True, not_compared=rows)
        until, is_exact = self._write(target, projection, generation, columns, file)
        for _ in range(_TRIES - 1):
            if is_exact:
                break
            until, is_exact = self._write(target, projection, generation, columns, file)
        return Snapshot(in_file(projection, columns, file), until, found != fingerprint_of(projection), is_exact)

    def _write(
        self, target: Target, projection: type[Any], generation: int, columns: Mapping[str, str], file: Path
    ) -> tuple[Until, bool]:
        """The rows, how far they are, and whether they are so to the commit."""
        until = self._until(target, generation)
        query = shown_query(
            projection,
            self._pipeline.name,
            generation,
            columns,
            until,
            aggregates=target.aggregates,
            partitions=max(self._partitions(each) for each in target.aggregates),
        )
        file.write_bytes(self._answers.answer(query, "Native"))
        return until, not issubclass(projection, Sql) or until == self._until(target, generation)

    def _partitions(self, aggregate: str) -> int:
        return self._pipeline.events_of(aggregate).partitions

    def _until(self, target: Target, generation: int | None) -> Until:
        found = progress_of(self.ask, self._pipeline.name, target.projection, target.aggregates, generation)
        if self._sample is None:
            return found
        taken = {aggregate: Sample(self._sample, self._partitions(aggregate)) for aggregate in target.aggregates}
        until: dict[tuple[str, int], int] = {}
        for part in sorted(found):
            sample = taken[part[0]]
            if number := min(found[part], sample.of_next or 0):
                until[part] = number
                sample.took(number)
        return until
