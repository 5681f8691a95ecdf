"""The mirror: every commit and every event of one aggregate, in ClickHouse."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from magnetar.schemas import LeaseLost, MessageId, StoreUnavailable
from magnetar.schemas.aggregate_schema import AggregateSchema

from .columns import literal, structure
from .container import container
from .generations import DEFINITION as GENERATIONS
from .range_loop import Lease, Range
from .store import Store
from .tables import MirrorTables
from .views import shown_views

_LEASE_LOST: Final = "magnetar: the lease is lost"
_KEY: Final = (
    "`projection` LowCardinality(String), generation UInt32, aggregate LowCardinality(String), "
    "partition UInt16, epoch UInt64, nonce String"
)
_TABLE: Final = "(`projection`, generation, aggregate, partition, epoch, nonce)"
_NOW: Final = "DateTime64(3, 'UTC') DEFAULT now64(3)"
_LEASES: Final = (
    f"CREATE TABLE IF NOT EXISTS magnetar.leases ({_KEY}, taken_at {_NOW}) ENGINE = MergeTree "
    f"ORDER BY {_TABLE} COMMENT 'who may write which partition of which table'"
)
_PENDING: Final = (
    f"CREATE TABLE IF NOT EXISTS magnetar.pending ({_KEY}, first Int64, last Int64, after Nullable(String), "
    f"owner Nullable(String), written_at {_NOW}) ENGINE = ReplacingMergeTree(first) "
    f"ORDER BY {_TABLE} COMMENT 'the range that each partition is at'"
)
ADMIN_DEFINITIONS: Final = ("CREATE DATABASE IF NOT EXISTS magnetar", _LEASES, _PENDING, GENERATIONS)
INSERT_SETTINGS: Final = (
    "max_insert_threads = 1, max_threads = 1, input_format_parallel_parsing = 0, max_partitions_per_insert_block = 1, "
    "min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0, max_insert_block_size = 10000000, "
    "max_block_size = 10000000, insert_deduplicate = 1"
)
"""One block, one table partition, one insert: an insert is atomic per block and per partition, and no more."""


class Mirror:
    """One generation of the tables of one aggregate, as a RangeStore."""

    def __init__(
        self,
        store: Store,
        schema: AggregateSchema,
        *,
        partitions: int,
        generation: int = 1,
        schema_text: Callable[[int], str],
        folder: Path,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._name = f"{schema.context}/{schema.aggregate}"
        self._generation = generation
        self.tables = MirrorTables(schema, partitions=partitions, generation=generation)
        self._schema_text = schema_text
        self._folder = folder
        self._failpoint = failpoint or (lambda _: None)

    def prepare(self) -> None:
        """Create what is missing of the tables, and widen what has grown. Repeatable."""
        for statement in self.tables.definitions():
            self._store.command(statement)
        columns = self._store.query(f"DESCRIBE TABLE {self.tables.events}")
        for statement in self.tables.widenings({row[0]: row[1] for row in columns}):
            self._store.command(statement)

    def last_numbers(self) -> dict[int, int]:
        """By partition, the number of the last commit in the tables, whoever put it there."""
        rows = self._store.query(f"SELECT partition, max(number) FROM {self.tables.commits} GROUP BY partition")
        return {row[0]: row[1] for row in rows}

    def show(self, failpoint: Callable[[str], None] = lambda _: None) -> None:
        """Let the views show this generation. Repeatable."""
        for nth, statement in enumerate(shown_views(self.tables).values()):
            if nth:
                failpoint("between_views")
            self._store.command(statement)

    def drop(self) -> None:
        """Remove the tables. Repeatable; no other generation ever gets their number."""
        for statement in self.tables.drops():
            self._store.command(statement)

    def take_lease(self, partition: int, nonce: str) -> Lease:
        """Write a lease above all before."""
        where = self._where(partition)
        ((epoch,),) = self._store.query(f"SELECT max(epoch) + 1 FROM magnetar.leases WHERE {where}")
        self._store.command(
            "INSERT INTO magnetar.leases (`projection`, generation, aggregate, partition, epoch, nonce) "
            "VALUES ('mirror', {generation:UInt32}, {aggregate:String}, {partition:UInt16}, {epoch:UInt64}, "
            "{nonce:String})",
            {
                "generation": self._generation,
                "aggregate": self._name,
                "partition": partition,
                "epoch": epoch,
                "nonce": nonce,
            },
        )
        return Lease(epoch, nonce)

    def stop_older_inserts(self, partition: int) -> None:
        """Kill what is still being inserted into the partition, and wait until it is gone."""
        self._store.command(
            "KILL QUERY WHERE position(query, {mark:String}) > 0 AND query_id != queryID() SYNC",
            {"mark": self._mark(partition)},
        )

    def read_pending(self, partition: int) -> Range | None:
        """The last range of the newest lease that wrote one.

        Raises StoreUnavailable if the tables are not as that range says: ClickHouse does not wait for the disk, and a
        power cut can take rows that it has confirmed, or the row of the range.
        """
        rows = self._store.query(
            f"SELECT first, last, after, owner FROM magnetar.pending WHERE {self._where(partition)} "
            "ORDER BY epoch DESC, nonce DESC, first DESC, last DESC LIMIT 1"
        )
        if not rows:
            self._check_tables(partition, 1, 0)
            return None
        first, last, after, owner = rows[0]
        self._check_tables(partition, first, last)
        place = None if after is None else MessageId(*(int(part) for part in after.split(":")))
        return Range(first, last, place, None if owner is None else bytes.fromhex(owner))

    def _check_tables(self, partition: int, first: int, last: int) -> None:
        """The tables hold each commit below `first` once, and all or none of those from there to `last`."""
        count, total, events, events_below = self._store.query(
            "SELECT count(), sum(number), sum(events), sumIf(events, number < {first:Int64}) "
            f"FROM {self.tables.commits} WHERE partition = {partition}",
            {"first": first},
        )[0]
        ((have_events,),) = self._store.query(f"SELECT count() FROM {self.tables.events} WHERE partition = {partition}")
        is_whole = count in (first - 1, last) and total == count * (count + 1) // 2
        if not is_whole or have_events not in (events, events_below):
            raise StoreUnavailable(
                f"The tables of {self._name} partition {partition} do not fit the log: they hold {count} commits and "
                f"{have_events} events, and commits {first} to {last} were begun last. Rows were lost, or changed "
                "behind the mirror's back.",
                cure="Nothing is lost from the log: `magnetar rebuild` with the pipeline's module fills new tables "
                "from it, or stop the projector and remove the folder `clickhouse` of the data folder.",
                partition=partition,
            )

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        """Write the range down under the lease's epoch."""
        self._store.command(
            "INSERT INTO magnetar.pending "
            "(`projection`, generation, aggregate, partition, epoch, nonce, first, last, after, owner) VALUES "
            "('mirror', {generation:UInt32}, {aggregate:String}, {partition:UInt16}, {epoch:UInt64}, {nonce:String}, "
            "{first:Int64}, {last:Int64}, "
            "{after:Nullable(String)}, {owner:Nullable(String)})",
            {
                "generation": self._generation,
                "aggregate": self._name,
                "partition": partition,
                "epoch": lease.epoch,
                "nonce": lease.nonce,
                "first": pending.first,
                "last": pending.last,
                "after": None if pending.after is None else ":".join(str(part) for part in pending.after),
                "owner": None if pending.owner is None else pending.owner.hex(),
            },
        )

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Let ClickHouse decode the payloads into both tables, each under its token and behind the lease."""
        text = self._schema_text(schema)
        path = self._folder / f"{os.getpid()}-{self.tables.schema.aggregate}-{self._generation}-{partition}.avro"
        try:
            with path.open("wb") as file:
                file.writelines(container(text, payloads))
            source = f"FROM file({literal(str(path))}, 'Avro', {literal(structure(json.loads(text)))})"
            statements = self.tables.inserts(text, source, partition, self._guard(partition, lease))
            for nth, (table, statement) in enumerate(statements.items()):
                if nth:
                    self._failpoint("between_tables")
                token = f"mirror:{self._generation}:{self._name}:{partition}:{inserted.first}-{inserted.last}:{table}"
                self._run(partition, f"{statement} SETTINGS insert_deduplication_token = {literal(token)}")
        except OSError as error:
            raise StoreUnavailable(
                f"A block for ClickHouse cannot be written to {path}: {error.strerror}.",
                cure="Make room; it goes on then.",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def _run(self, partition: int, statement: str) -> None:
        try:
            self._store.command(f"/* {self._mark(partition)} */ {statement}, {INSERT_SETTINGS}")
        except StoreUnavailable as error:
            if _LEASE_LOST in error.what:
                raise LeaseLost(f"Another projector has taken {self._name} partition {partition} over.") from error
            raise

    def _guard(self, partition: int, lease: Lease) -> str:
        """True while this lease is the newest; an error otherwise, also if there is no lease at all."""
        newest = f"SELECT max((epoch, nonce)) FROM magnetar.leases WHERE {self._where(partition)}"
        ours = f"(toUInt64({lease.epoch}), {literal(lease.nonce)})"
        return f"throwIf(({newest}) != {ours}, {literal(_LEASE_LOST)}) = 0"

    def _where(self, partition: int) -> str:
        of_table = f"`projection` = 'mirror' AND generation = {self._generation} AND aggregate = {literal(self._name)}"
        return f"{of_table} AND partition = {partition}"

    def _mark(self, partition: int) -> str:
        return f"magnetar mirror {self._generation} {self._name} {partition} insert"
