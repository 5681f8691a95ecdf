"""Feeding: the range loops of some generations of tables, stepped together."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Final, NamedTuple

import structlog
from magnetar.projections.leased_table import LeasedTable, PendingRow, Table
from magnetar.projections.quarantining_table import QuarantiningTable
from magnetar.projections.range_loop import RANGE_COMMITS_MAX, Feed, Planned, RangeLoop
from magnetar.schemas import (
    LeaseLost,
    LogUnavailable,
    MagnetarError,
    MessageId,
    PartitionRefused,
    QueryRefused,
    StoreUnavailable,
)

from .clock import Clock
from .event_source import EventSource
from .log import Log, Reader, Run
from .pipeline import Pipeline
from .projector_metrics import watch_fed
from .tracing import tracing
from .watching import WatchedTable

LOOK_SECONDS: Final = 30.0
"""How often it is asked, while nothing comes, whether anything could: Pulsar's client waits in silence for a right that
was taken away, or for a token that has expired."""

RETRY_SECONDS: Final = 5.0
"""How long a partition that was lost is left alone at least, and twice that at most."""

THREADS: Final = 4
"""While ClickHouse takes in one partition's range, Python reads another's. Of the rate of ready-made blocks, one thread
reached 46 %, two 62 %, four 70 %."""


SHORT_COMMITS_MAX: Final = 1000
"""Ranges up to this size are written down together, for which ClickHouse takes as long as for one of them: where few
commits come to many partitions, a fifth of its time went into that. A longer one does not wait in memory for others."""

TOGETHER: Final = 8
"""So many partitions of tables take their step together. With all of them together, what comes to one just after it was
read would wait until all others have been inserted, and then once more for those before it."""

_LOSING: Final = (LeaseLost, StoreUnavailable, QueryRefused, LogUnavailable, PartitionRefused)


class Part(NamedTuple):
    """One partition of it: what a loop feeds."""

    table: Table
    partition: int


class _InTurn:
    """A reader that reads while no other one does.

    SQLite lets go of the interpreter's lock at every row, so two threads that read at once hand it to each other at
    every row, and spend more time on waiting for it than on reading.
    """

    def __init__(self, reader: Reader, turn: threading.Lock, seen: Callable[[Run], None]) -> None:
        self._reader = reader
        self._turn = turn
        self._seen = seen
        self.close = reader.close

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        """The next messages, when it is this reader's turn; who may have to wait for them keeps nobody else waiting."""
        with nullcontext() if timeout_seconds else self._turn:
            run = self._reader.read_run(messages_max=messages_max, timeout_seconds=timeout_seconds)
        if run is not None:
            self._seen(run)
        return run


class Source(NamedTuple):
    """Where the commits come from, and what a test strikes at."""

    pipeline: Pipeline
    log: Log
    clock: Clock
    reading: threading.Lock
    failpoint: Callable[[str], None] | None = None
    mine: Callable[[str], frozenset[int]] | None = None
    """The partitions of an aggregate that this process feeds; None for all of them."""

    def partitions(self, aggregate: str) -> Iterable[int]:
        """Those that are fed."""
        return (
            range(self.pipeline.events_of(aggregate).partitions) if self.mine is None else sorted(self.mine(aggregate))
        )

    def open(
        self,
        aggregate: str,
        partition: int,
        after: MessageId | None,
        seen: Callable[[Run], None] = lambda _: None,
    ) -> Feed:
        """Read a partition of the aggregate's event topic behind a message; `seen` is shown what is read."""
        source = self.pipeline.events_of(aggregate)
        if source.schema.context != self.pipeline.name:
            self._check_partitions(source)
        return _InTurn(self.log.reader(source.topic, partition, after=after), self.reading, seen)

    def _check_partitions(self, source: EventSource) -> None:
        """Of another context it is not this pipeline that makes the topic: of more partitions than were declared, some
        would never be read. Raises LogUnavailable, also if it is not there."""
        found = self.log.describe(source.topic).partitions
        if found != source.partitions:
            raise LogUnavailable(
                f"{source.topic} has {found} partitions, and the pipeline {source.schema.context!r} that is read here "
                f"declares {source.partitions}.",
                cure="Read the pipeline as it is declared where it runs.",
            )

    def is_used(self, aggregate: str, partition: int) -> bool:
        """Whether the partition ever had a message."""
        return self.log.end(self.pipeline.events_of(aggregate).topic, partition) is not None


class Feeding:
    """The loops of some tables. A partition that is lost is taken back later. One thread at a time calls it."""

    def __init__(
        self,
        source: Source,
        *,
        range_commits_max: int = RANGE_COMMITS_MAX,
        name: str,
        is_shown: bool = True,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_shown` says whether somebody looks at the tables, so that it matters how old what they lack is. `beat` is
        called for each partition's range: a step goes over all tables and partitions, which can take long."""
        self._source = source
        self._beat = beat
        self._is_shown = is_shown
        self._range_commits_max = range_commits_max
        self._stores: dict[Table, LeasedTable] = {}
        self._watched: dict[Table, WatchedTable] = {}
        self._tracing = tracing()
        self._loops: dict[Part, RangeLoop | None] = {}
        self._open_at: dict[Part, float] = {}
        self._look_at = source.clock.monotonic() + LOOK_SECONDS
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"magnetar-{name}")
        self._logger = structlog.get_logger("magnetar.projector").bind(context=source.pipeline.name)

    @property
    def tables(self) -> list[Table]:
        """What is fed."""
        return list(self._stores)

    def add(self, store: LeasedTable) -> None:
        """Feed this table as well; `open` takes its leases."""
        self._stores[store.table] = store
        if store.table not in self._watched:
            self._watched[store.table] = WatchedTable(
                self._source.pipeline.name, store.table, self._source.clock, self._tracing, is_shown=self._is_shown
            )
        if self._is_shown:
            watch_fed(
                self._source.pipeline.name,
                store.table,
                partial(self._partitions_fed, store.table._replace(generation=0)),
            )

    def _partitions_fed(self, of: Table) -> int:
        """Of the table in any of its generations. A scrape's thread asks, while the loops come and go."""
        loops = self._loops.copy().items()
        return len(
            {part.partition for part, loop in loops if loop is not None and part.table._replace(generation=0) == of}
        )

    def open(self) -> None:
        """Take the lease of every partition, and replay the range that each was at."""
        list(self._threads.map(self._step_one, self._begin_with_new()))

    def _begin_with_new(self) -> list[Part]:
        """The parts that are fed from now on: each is opened with its next step."""
        parts = [Part(table, p) for table in self._stores for p in self._source.partitions(table.aggregate)]
        new = [part for part in parts if part not in self._loops]
        self._open_at.update({part: self._source.clock.monotonic() for part in new})
        self._loops.update(dict.fromkeys(new))
        return new

    def _leave_to_others(self) -> None:
        """Feed no more what is not this process's any more: its leases are simply overtaken."""
        mine = {table: frozenset(self._source.partitions(table.aggregate)) for table in self._stores}
        for part in [part for part in self._loops if part.partition not in mine[part.table]]:
            if (loop := self._loops.pop(part)) is not None:
                loop.close()
            self._watched[part.table].left(part.partition)

    def open_used(self) -> None:
        """The same for the partitions that are not open yet and have something: in tests they are few."""
        for table in self._stores:
            for partition in range(self._source.pipeline.events_of(table.aggregate).partitions):
                part = Part(table, partition)
                if part not in self._loops and self._source.is_used(table.aggregate, partition):
                    self._open_one(part)

    def _open_one(self, part: Part) -> None:
        (table, partition), source = part, self._source
        self._loops[part] = RangeLoop(
            self._stores[table],
            partition,
            lambda after: source.open(table.aggregate, partition, after, partial(self._watched[table].read, partition)),
            nonce=random.SystemRandom().randbytes(16).hex(),
            range_commits_max=min(self._range_commits_max, self._stores[table].range_commits_max),
            open_mirror=partial(self._stores[table].open_mirror, partition),
            failpoint=source.failpoint,
        )

    def _open_again(self, part: Part) -> int:
        """Take back a partition that was lost, after a pause: its new owner may be gone, or ClickHouse back."""
        if self._source.clock.monotonic() >= self._open_at[part]:
            self._open_one(part)
        return 0

    def step(self) -> int:
        """Insert the next range of each partition; returns how many commits they have together."""
        if self._source.mine is not None:
            self._leave_to_others()
            self._begin_with_new()
        if not (commits := self._step(list(self._loops))):
            self._look()
        return commits

    def _look(self) -> None:
        """Say it if the log does not give the events any more, now and then."""
        if self._source.clock.monotonic() < self._look_at:
            return
        self._look_at = self._source.clock.monotonic() + LOOK_SECONDS
        read = {part.table.aggregate: part.partition for part, loop in self._loops.items() if loop is not None}
        for aggregate, partition in read.items():
            try:
                self._source.is_used(aggregate, partition)
            except LogUnavailable as error:
                self._logger.warning("events cannot be read", aggregate=aggregate, what=error.what, cure=error.cure)

    def step_table(self, table: Table) -> int:
        """The same for one table."""
        return self._step([part for part in self._loops if part.table == table])

    def _step(self, parts: list[Part]) -> int:
        return sum(self._step_together(parts[at : at + TOGETHER]) for at in range(0, len(parts), TOGETHER))

    def _step_together(self, parts: list[Part]) -> int:
        steps = list(zip(parts, self._threads.map(self._step_one, parts), strict=True))
        short = [(part, planned) for part, planned in steps if isinstance(planned, Planned)]
        self._write_down(short)
        inserted = self._threads.map(lambda each: self._insert(*each), short)
        return sum(inserted) + sum(count for _, count in steps if isinstance(count, int))

    def settle(self) -> bool:
        """Do what was wished with events that are quarantined; returns whether something is left to be done."""
        is_left = False
        for table, store in self._stores.items():
            if not isinstance(store, QuarantiningTable):
                continue
            try:
                wishes = store.wishes()
            except QueryRefused:  # ClickHouse has its bad moments: they stand there still when it is asked again
                is_left = True
                continue
            for wish in wishes:
                part = Part(table, wish.partition)
                if part not in self._loops:  # another projector's
                    continue
                loop = self._loops[part]
                if loop is None:
                    is_left = True
                    continue
                try:
                    self._beat()
                    loop.between_ranges(partial(store.settle, wish.partition, wish=wish))
                except (LeaseLost, StoreUnavailable, QueryRefused, PartitionRefused) as error:
                    self._lose(part, error)
                    is_left = True
        return is_left

    def _step_one(self, part: Part) -> int | Planned:
        """How many commits have been inserted; or a short range, which is neither written down nor inserted."""
        self._beat()
        loop = self._loops[part]
        try:
            if loop is None:
                return self._open_again(part)
            planned = loop.plan()
        except _LOSING as error:
            self._lose(part, error)
            return 0
        if planned is None:
            self._watched[part.table].settled(part.partition)
            return 0
        if planned.commits <= SHORT_COMMITS_MAX:
            return planned
        self._write_down([(part, planned)])
        return self._insert(part, planned)

    def _write_down(self, planned: list[tuple[Part, Planned]]) -> None:
        """Write ranges down before they are inserted."""
        rows = [row for part, each in planned if (row := self._pending_row(part, each)) is not None]
        if not rows:
            return
        try:
            self._stores[planned[0][0].table].write_pending_rows(rows)
        except StoreUnavailable as error:
            for part, _ in planned:
                self._lose(part, error)

    def _pending_row(self, part: Part, planned: Planned) -> PendingRow | None:
        """None of a partition that is lost, which this can make it: some kinds of tables ask ClickHouse for it."""
        if (loop := self._loops[part]) is None:
            return None
        try:
            return self._stores[part.table].pending_row(part.partition, loop.lease, planned.range)
        except _LOSING as error:
            self._lose(part, error)
            return None

    def _insert(self, part: Part, planned: Planned) -> int:
        """Insert a range that is written down."""
        self._beat()
        loop, begun_at = self._loops[part], self._source.clock.monotonic()
        if loop is None:
            return 0
        try:
            count = loop.insert(planned)
        except _LOSING as error:
            self._lose(part, error)
            return 0
        self._watched[part.table].settled(part.partition)
        seconds = self._source.clock.monotonic() - begun_at
        self._watched[part.table].inserted(part.partition, loop.number, count, seconds)
        self._logger.debug("fed", **self._named(part), number=loop.number)
        return count

    def _lose(self, part: Part, error: MagnetarError) -> None:
        self._watched[part.table].lost(part.partition, error, to_another=isinstance(error, LeaseLost))
        self._logger.warning("partition lost", **self._named(part), what=error.what, cure=error.cure)
        if (loop := self._loops[part]) is not None:
            loop.close()
        self._loops[part] = None
        self._open_at[part] = self._source.clock.monotonic() + RETRY_SECONDS * (1 + random.SystemRandom().random())

    def _named(self, part: Part) -> dict[str, str | int]:
        return {**part.table._asdict(), "partition": part.partition}

    @property
    def lost(self) -> list[Part]:
        """The partitions that were lost, and are left alone for a while."""
        return [part for part, loop in self._loops.items() if loop is None]

    def numbers(self, table: Table) -> dict[int, int]:
        """By partition, the number of the last commit in the table; a partition that is not open is left out."""
        return {
            part.partition: loop.number
            for part, loop in list(self._loops.items())
            if part.table == table and loop is not None
        }

    def move(self, table: Table, to: Feeding) -> None:
        """Let another feeding go on with the table, with the leases that it has."""
        to._watched[table] = self._watched.pop(table)
        to._watched[table].is_shown = to._is_shown
        for part in [part for part in self._loops if part.table == table]:
            to._loops[part] = self._loops.pop(part)
            to._open_at[part] = self._open_at.pop(part, 0.0)
        to.add(self._stores.pop(table))

    def drop(self, table: Table) -> None:
        """Feed it no more."""
        self._stores.pop(table, None)
        for part in [part for part in self._loops if part.table == table]:
            if (loop := self._loops.pop(part)) is not None:
                loop.close()

    def close(self) -> None:
        """Let go of the log."""
        self._threads.shutdown()
        for table in self.tables:
            self.drop(table)
