"""What all tables that a range loop fills have in common: leases, pending ranges, and inserts behind both."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from magnetar.schemas import LeaseLost, MessageId, StoreUnavailable

from .columns import literal, quoted
from .freshness import MIRROR
from .generations import DEFINITION as GENERATIONS
from .generations import WITH_ORIGIN
from .held_leases import Held, held, is_lease_lost
from .quarantine import DEFINITION as QUARANTINE
from .range_loop import Lease, Mirrored, Range
from .store import Block, Store

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
_PROGRESS: Final = (
    "CREATE TABLE IF NOT EXISTS magnetar.progress (`projection` LowCardinality(String), generation UInt32, "
    f"aggregate LowCardinality(String), partition UInt16, number Int64, at {_NOW}) ENGINE = ReplacingMergeTree(number) "
    "ORDER BY (`projection`, generation, aggregate, partition) "
    "COMMENT 'up to which commit each partition is whole, where no pending range says so'"
)
_COUNTED: Final = (
    "ALTER TABLE magnetar.pending ADD COLUMN IF NOT EXISTS counted UInt64 DEFAULT 0 "
    "COMMENT 'rows, or keys of a fold, of the commits below first'"
)
_COUNTED_SINCE: Final = (
    "ALTER TABLE magnetar.pending ADD COLUMN IF NOT EXISTS counted_since Int64 DEFAULT 0 "
    "COMMENT 'of commands since then, in seconds since 1970: rows of earlier ones were left out'"
)
_COUNTED_UNTIL: Final = (
    "ALTER TABLE magnetar.pending ADD COLUMN IF NOT EXISTS counted_until Int64 DEFAULT 0 "
    "COMMENT 'the time up to which none of what was counted is over, in seconds since 1970; 0 for ever'"
)
_INCARNATION: Final = (
    "ALTER TABLE magnetar.pending ADD COLUMN IF NOT EXISTS incarnation String DEFAULT '' "
    "COMMENT 'of the event topic that the range was read from'"
)
ADMIN_DEFINITIONS: Final = (
    "CREATE DATABASE IF NOT EXISTS magnetar",
    _LEASES,
    _PENDING,
    _COUNTED,
    _COUNTED_SINCE,
    _COUNTED_UNTIL,
    _INCARNATION,
    _PROGRESS,
    GENERATIONS,
    WITH_ORIGIN,
    QUARANTINE,
)
INSERT_SETTINGS: Final = (
    "max_insert_threads = 1, max_threads = 1, input_format_parallel_parsing = 0, max_partitions_per_insert_block = 1, "
    "min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0, max_insert_block_size = 10000000, "
    "max_block_size = 10000000, insert_deduplicate = 1"
)
"""One block, one table partition, one insert: an insert is atomic per block and per partition, and no more."""


class Table(NamedTuple):
    """What a range loop feeds: one generation of a projection's rows that come from one aggregate's events."""

    projection: str
    """The class's name, or MIRROR."""
    aggregate: str
    generation: int

    @property
    def target(self) -> str:
        """What is rebuilt and swapped as a whole: an aggregate's name means its mirror."""
        return self.aggregate if self.projection == MIRROR else self.projection


class Scope(NamedTuple):
    """Of which rows it is counted how many there are, where rows do not stay for ever. Times are seconds since 1970."""

    since: int = 0
    """Of commands since then."""
    until: int = 0
    """Up to then none of them is over; 0 for ever."""


ALL: Final = Scope()


class PendingRow(NamedTuple):
    """A row of `magnetar.pending`."""

    projection: str
    generation: int
    aggregate: str
    partition: int
    epoch: int
    nonce: str
    first: int
    last: int
    after: str | None
    owner: str | None
    counted: int
    counted_since: int
    counted_until: int
    incarnation: str


def of_another_log(aggregate: str) -> StoreUnavailable:
    """The error for a table that has another log's commits: this log's would be taken for them."""
    return StoreUnavailable(
        f"The tables have commits of {aggregate} from another log, or from a topic that was made anew since.",
        cure="Give each log tables of its own: another data folder, by --data or MAGNETAR_DATA, or another ClickHouse. "
        "Was the log put back to an older copy? Restore both from one copy. If the other log is gone for good, remove "
        "the folder `clickhouse` in the data folder, or on a server the pipeline's database and its rows in those of "
        "`magnetar`: the tables are filled from this log then.",
    )


class LeasedTable(ABC):
    """A RangeStore in ClickHouse. Each kind of projection says what its tables are, and how a range gets into them."""

    def __init__(
        self,
        store: Store,
        context: str,
        table: Table,
        *,
        folder: Path,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        """`folder` takes the file of a block while the embedded engine inserts it."""
        self.table = table
        self._store = store
        self._name = f"{context}/{table.aggregate}"
        self._folder = folder
        self._failpoint = failpoint or (lambda _: None)
        self.ask_incarnation: Callable[[], str] = lambda: ""
        """Asks the log for the incarnation of the topic of events, which another log has not."""
        self._incarnation = ""
        self.check_may_grow: Callable[[], None] = lambda: None
        """Raises LeaseLost while the table must stand still: asked by whoever has just taken a lease of it."""

    range_commits_max: ClassVar[int] = 10_000_000
    """Commits in one range at most, for what this kind makes of them."""

    # --- what differs by kind -----------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> None:
        """Create what is missing of the tables, and widen what has grown. Repeatable."""

    @abstractmethod
    def show(self, failpoint: Callable[[str], None] = lambda _: None, /) -> None:
        """Let the views show this generation. Repeatable."""

    @abstractmethod
    def drop(self) -> None:
        """Remove the tables. Repeatable; no other generation ever gets their number."""

    @abstractmethod
    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Insert a range, all or nothing, unless it is in the table already: in one `_insert_block` for each table.

        Raises LeaseLost, and inserts nothing, if the lease is not the newest when the insert starts.
        """

    @abstractmethod
    def check(self, partition: int, first: int, last: int, counted: int, scope: Scope = ALL, /) -> None:
        """Raise StoreUnavailable unless all below `first` is there once, and all or nothing from there to `last`.

        `counted` is what `counted` said of what is below `first`, and `scope` what `scope` said.
        """

    def counted(self, _partition: int, /) -> int:
        """How much the table has of what was inserted before the range that is being written down, for `check`."""
        return 0

    def scope(self, _partition: int, /) -> Scope:
        """Of which rows `counted` says how many there are."""
        return ALL

    def open_mirror(self, _partition: int, /) -> Mirrored | None:
        """The mirror as the source of a partition's ranges, verified; None if they come from the log alone."""
        return None

    def last_numbers(self) -> dict[int, int]:
        """By partition, the number of the last commit that may be in the tables, whoever put it there."""
        rows = self._store.query(
            f"SELECT partition, argMax(last, (epoch, nonce, first, last)) FROM magnetar.pending "
            f"WHERE {self._of_table()} "
            "GROUP BY partition"
        )
        return {row[0]: row[1] for row in rows}

    # --- leases and pending ranges ------------------------------------------------------------------------------------

    def take_lease(self, partition: int, nonce: str) -> Lease:
        """Write a lease above all before, also above those that are only in pending ranges: leases can be lost."""
        where = self._where(partition)
        before = " UNION ALL ".join(
            f"SELECT max(epoch) AS epoch FROM magnetar.{table} WHERE {where}" for table in ("leases", "pending")
        )
        ((epoch,),) = self._store.query(f"SELECT max(epoch) + 1 FROM ({before})")
        lease = Lease(epoch, nonce)
        self._store.command(
            "INSERT INTO magnetar.leases (`projection`, generation, aggregate, partition, epoch, nonce) "
            "VALUES ({projection:String}, {generation:UInt32}, {aggregate:String}, {partition:UInt16}, {epoch:UInt64}, "
            "{nonce:String})",
            self._key(partition, lease),
        )
        return lease

    def take_all(self, partitions: int, nonce: str) -> dict[int, Lease]:
        """Take the lease of every partition and stop what is being inserted, as `take_lease` and `stop_older_inserts`
        do for one: in three statements, since the table stands still until they are done."""
        before = " UNION ALL ".join(
            f"SELECT partition, epoch FROM magnetar.{table} WHERE {self._of_table()}" for table in ("leases", "pending")
        )
        rows = self._store.query(f"SELECT partition, max(epoch) FROM ({before}) GROUP BY partition")
        epochs: dict[int, int] = {row[0]: row[1] for row in rows}
        leases = {partition: Lease(epochs.get(partition, 0) + 1, nonce) for partition in range(partitions)}
        lines = "\n".join(json.dumps(self._key(partition, lease)) for partition, lease in leases.items())
        self._store.command(
            "INSERT INTO magnetar.leases (`projection`, generation, aggregate, partition, epoch, nonce) "
            f"FORMAT JSONEachRow\n{lines}"
        )
        self._stop_inserts(self._mark_of_table())
        return leases

    def held_all(self, leases: Mapping[int, Lease]) -> Held:
        """What a statement says that needs all these leases, which `take_all` has taken under one nonce."""
        nonce = next(iter(leases.values())).nonce
        newest = (
            f"SELECT argMax(nonce, (epoch, nonce)) AS newest FROM magnetar.leases WHERE {self._of_table()} "
            "GROUP BY partition"
        )
        return Held(
            " ".join(map(self._mark, leases)),
            held(f"SELECT countIf(newest = {literal(nonce)}) FROM ({newest})", f"toUInt64({len(leases)})"),
        )

    def stop_older_inserts(self, partition: int) -> None:
        """Kill what is still being inserted into the partition, and wait until it is gone."""
        self._stop_inserts(self._mark(partition))

    def _stop_inserts(self, mark: str) -> None:
        self._store.command(
            "KILL QUERY WHERE position(query, {mark:String}) > 0 AND query_id != queryID() SYNC", {"mark": mark}
        )

    def read_pending(self, partition: int) -> Range | None:
        """The last range of the newest lease that wrote one.

        Raises StoreUnavailable if the tables are not as that range says: ClickHouse does not wait for the disk, and a
        power cut can take rows that it has confirmed, or the row of the range. So it does if the range was read from
        another log, and LeaseLost while the table must stand still.
        """
        self.check_may_grow()
        self._incarnation = self.ask_incarnation()
        rows = self._store.query(
            "SELECT incarnation, first, last, after, owner, counted, counted_since, counted_until "
            f"FROM magnetar.pending WHERE {self._where(partition)} "
            "ORDER BY epoch DESC, nonce DESC, first DESC, counted DESC LIMIT 1"
        )
        if not rows:
            self.check(partition, 1, 0, 0)
            return None
        incarnation, first, last, after, owner, counted, *scope = rows[0]
        if self._incarnation and incarnation not in ("", self._incarnation):
            raise of_another_log(self._name)
        self.check(partition, first, last, counted, Scope(*scope))
        place = None if after is None else MessageId(*(int(part) for part in after.split(":")))
        return Range(first, last, place, None if owner is None else bytes.fromhex(owner))

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        """Write the range down under the lease's epoch."""
        self.write_pending_rows([self.pending_row(partition, lease, pending)])

    def pending_row(self, partition: int, lease: Lease, pending: Range) -> PendingRow:
        """What is written down of a range before it is inserted."""
        return PendingRow(
            **self._key(partition, lease),
            first=pending.first,
            last=pending.last,
            after=None if pending.after is None else ":".join(str(part) for part in pending.after),
            owner=None if pending.owner is None else pending.owner.hex(),
            counted=self.counted(partition),
            counted_since=self.scope(partition).since,
            counted_until=self.scope(partition).until,
            incarnation=self._incarnation,
        )

    def write_pending_rows(self, rows: Sequence[PendingRow]) -> None:
        """Write ranges down, of any tables and partitions: it takes ClickHouse as long as for one of them."""
        columns = ", ".join(quoted(name) for name in PendingRow._fields)
        lines = "\n".join(json.dumps(row._asdict()) for row in rows)
        self._store.command(f"INSERT INTO magnetar.pending ({columns}) FORMAT JSONEachRow\n{lines}")

    def tell(self, partition: int, number: int) -> None:
        """Write down how far the tables are: the pending range says so of what is below it alone."""
        self._store.command(
            "INSERT INTO magnetar.progress (`projection`, generation, aggregate, partition, number) VALUES "
            "({projection:String}, {generation:UInt32}, {aggregate:String}, {partition:UInt16}, {number:Int64})",
            {
                "projection": self.table.projection,
                "generation": self.table.generation,
                "aggregate": self._name,
                "partition": partition,
                "number": number,
            },
        )

    def _key(self, partition: int, lease: Lease) -> dict[str, Any]:
        return {
            "projection": self.table.projection,
            "generation": self.table.generation,
            "aggregate": self._name,
            "partition": partition,
            "epoch": lease.epoch,
            "nonce": lease.nonce,
        }

    # --- inserts ------------------------------------------------------------------------------------------------------

    def _block(
        self, partition: int, parts: Iterable[bytes], structure: str, fmt: str = "Avro"
    ) -> AbstractContextManager[Block]:
        """A block of this structure, for as long as it is inserted."""
        projection, _, generation = self.table
        file = f"{os.getpid()}-{projection}-{self._name.replace('/', '.')}-{generation}-{partition}.block"
        return self._store.block(parts, structure, self._folder / file, fmt=fmt)

    def _insert_block(self, partition: int, inserted: Range, statement: str, part: str, block: Block | None) -> None:
        """Run one `INSERT … SELECT … WHERE {_guard}`, once for this range. `part` says which of the tables it is."""
        projection, _, generation = self.table
        token = f"{projection}:{generation}:{self._name}:{partition}:{inserted.first}-{inserted.last}:{part}"
        self._run(partition, f"{statement} SETTINGS insert_deduplication_token = {literal(token)}", block)

    def _run(self, partition: int, statement: str, block: Block | None = None) -> None:
        try:
            self._store.command(f"/* {self._mark(partition)} */ {statement}, {INSERT_SETTINGS}", block=block)
        except StoreUnavailable as error:
            if is_lease_lost(error):
                raise LeaseLost(f"Another projector has taken {self._name} partition {partition} over.") from error
            raise

    def _guard(self, partition: int, lease: Lease) -> str:
        """True while this lease is the newest; an error otherwise, also if there is no lease at all."""
        newest = f"SELECT max((epoch, nonce)) FROM magnetar.leases WHERE {self._where(partition)}"
        ours = f"(toUInt64({lease.epoch}), {literal(lease.nonce)})"
        return held(newest, ours)

    def _where(self, partition: int) -> str:
        return f"{self._of_table()} AND partition = {partition}"

    def _of_table(self) -> str:
        return (
            f"`projection` = {literal(self.table.projection)} AND generation = {self.table.generation} "
            f"AND aggregate = {literal(self._name)}"
        )

    def _mark(self, partition: int) -> str:
        return f"{self._mark_of_table()}{partition} insert"

    def _mark_of_table(self) -> str:
        """What the marks of all partitions begin with."""
        projection, _, generation = self.table
        return f"magnetar {projection} {generation} {self._name} "
