"""From what is to be kept to the table that keeps it: the one place that knows all kinds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from magnetar.projections import Fold, Sql
from magnetar.projections.decoding import Decoder, Decoding
from magnetar.projections.freshness import MIRROR
from magnetar.projections.incremental_table import IncrementalTable
from magnetar.projections.keyed_fold_table import fold_table_of
from magnetar.projections.leased_table import LeasedTable, Table
from magnetar.projections.mirror import Mirror
from magnetar.projections.mirror_source import MirrorSource
from magnetar.projections.projected_table import Source
from magnetar.projections.quarantine import KEYS_MAX
from magnetar.projections.rows_table import RowsTable
from magnetar.projections.store import Store
from magnetar.projections.tables import MirrorTables

from .log import Log
from .pipeline import Pipeline
from .targets import projection_of

_INCARNATION_SECONDS: Final = 2.0
"""How old an answer of the log may be: less than a lost partition is left alone."""


def mirror_source(pipeline: Pipeline, store: Store, aggregate: str, generation: Callable[[], int]) -> MirrorSource:
    """The mirror of an aggregate as a source of other tables; `generation` says which one is shown just now."""
    schema, partitions = pipeline.schemas[aggregate], pipeline.partitions
    return MirrorSource(store, lambda: MirrorTables(schema, partitions=partitions, generation=generation()))


class TableKinds:
    """Makes the tables of a pipeline in a store."""

    def __init__(
        self,
        pipeline: Pipeline,
        log: Log,
        store: Store,
        folder: Path,
        *,
        quarantine_keys_max: int = KEYS_MAX,
        decoding: Decoding = Decoding.TRIED,
    ) -> None:
        """`folder` takes the blocks that are inserted."""
        self._pipeline, self._log, self._store, self._folder = pipeline, log, store, folder
        self._quarantine_keys_max = quarantine_keys_max
        self._decoder = Decoder(store, folder, decoding)
        self._incarnations: dict[str, tuple[float, str]] = {}

    def make(
        self,
        table: Table,
        *,
        projection: type[Any] | None = None,
        mirrored: Callable[[], int] | None = None,
        failpoint: Callable[[str], None] | None = None,
    ) -> LeasedTable:
        """The table of a mirror, or of a projection: that of its name, or another class in its place.

        With `mirrored`, the projection's is filled from that generation of the mirror at first.
        """
        if table.projection == MIRROR:
            return self.mirror(table, failpoint=failpoint)
        projection = projection or projection_of(self._pipeline, table.projection)
        kind: Any = RowsTable  # each takes projections of its kind, and nothing else differs
        if issubclass(projection, Fold | Sql):
            kind = IncrementalTable if issubclass(projection, Sql) else fold_table_of(projection)
        made: LeasedTable = kind(
            self._store,
            projection,
            self._source(table.aggregate, projection, mirrored),
            generation=table.generation,
            folder=self._folder,
            failpoint=failpoint,
        )
        made.ask_incarnation = partial(self._incarnation, table.aggregate)
        return made

    def _incarnation(self, aggregate: str) -> str:
        """All partitions of all tables ask for it when they are opened, mostly together."""
        known = self._incarnations.get(aggregate)
        if known is None or time.monotonic() - known[0] > _INCARNATION_SECONDS:
            found = self._log.describe(self._pipeline.events_of(aggregate).topic).incarnation
            self._incarnations[aggregate] = known = (time.monotonic(), found)
        return known[1]

    def _source(self, aggregate: str, projection: type[Any], mirrored: Callable[[], int] | None) -> Source:
        schema, partitions = self._pipeline.events_of(aggregate)
        others = {*self._pipeline.aggregates_of(projection)} - {aggregate}
        return Source(
            schema,
            partitions,
            self._schema_text(aggregate),
            self._quarantine_keys_max,
            self._decoder,
            None if mirrored is None else self._mirror_source(aggregate, mirrored),
            reader=self._pipeline.name,
            partitions_together=partitions + sum(self._pipeline.events_of(each).partitions for each in others),
        )

    def _mirror_source(self, aggregate: str, generation: Callable[[], int]) -> MirrorSource:
        return mirror_source(self._pipeline, self._store, aggregate, generation)

    def mirror(self, table: Table, *, failpoint: Callable[[str], None] | None = None) -> Mirror:
        """The mirror of an aggregate."""
        made = Mirror(
            self._store,
            self._pipeline.schemas[table.aggregate],
            partitions=self._pipeline.partitions,
            generation=table.generation,
            schema_text=self._schema_text(table.aggregate),
            folder=self._folder,
            failpoint=failpoint,
            decoder=self._decoder,
        )
        made.ask_incarnation = partial(self._incarnation, table.aggregate)
        return made

    def _schema_text(self, aggregate: str) -> Callable[[int], str]:
        return partial(self._log.schema, self._pipeline.events_of(aggregate).topic)
