"""What is in a projection's table that is shown: how far it is, and its rows as of there, in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from magnetar.projections import Sql
from magnetar.projections.columns import quoted
from magnetar.projections.declarations import view_name
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.progress import fingerprints
from magnetar.projections.query import answer
from magnetar.projections.row_difference import Side
from magnetar.projections.snapshot import Until, columns_of, in_file, progress_of, shown_query
from msgspec.json import decode

from .pipeline import Pipeline
from .rebuild_status import generations_of
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


class LiveTables:
    """The tables of a data folder, asked through whoever has them open."""

    def __init__(self, pipeline: Pipeline, folder: Path, *, commits_max: int | None) -> None:
        """`commits_max`: so many commits of each partition, from its first."""
        self._pipeline = pipeline
        self._folder = folder
        self._commits_max = commits_max

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [decode(line) for line in answer(self._folder, sql, "JSONEachRow").splitlines()]

    def snapshot(self, target: Target, file: Path) -> Snapshot:
        """Write a table's rows to a file, as of the commit that each partition is at.

        Only a fold's and a Rows' rows say of which commit they are. The groups of an Sql are asked for again, a few
        times, if some came in meanwhile.
        """
        context = self._pipeline.name
        projection = projection_of(self._pipeline, target.projection)
        generation = generations_of(self.ask, self._pipeline, target.name).shown
        table = f"{quoted(context)}.{quoted(f'{view_name(projection)}__g{generation}')}"
        found = fingerprints(self.ask, context).get(table)
        columns = columns_of(self.ask, context, projection, generation)
        if found is None or not columns:
            return Snapshot(None, self._until(Target(MIRROR, target.aggregates), None), has_changed=True)
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
            partitions=self._pipeline.partitions,
        )
        file.write_bytes(answer(self._folder, query, "Native"))
        return until, not issubclass(projection, Sql) or until == self._until(target, generation)

    def _until(self, target: Target, generation: int | None) -> Until:
        found = progress_of(self.ask, self._pipeline.name, target.projection, target.aggregates, generation)
        if self._commits_max is None:
            return found
        return {part: min(number, self._commits_max) for part, number in found.items()}
