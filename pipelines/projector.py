"""The projector: brings the event topics of a pipeline into ClickHouse, and answers queries meanwhile."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Final

import structlog
from magnetar.projections import Sql
from magnetar.projections.columns import quoted
from magnetar.projections.engine_reader import QueryLimits
from magnetar.projections.http_front import HttpFront
from magnetar.projections.mirror import ADMIN_DEFINITIONS, Mirror
from magnetar.projections.range_loop import Feed, RangeLoop
from magnetar.projections.sql_views import create_view
from magnetar.projections.store import Store, embedded_dsn
from magnetar.projections.views import RESERVED, views
from magnetar.schemas import (
    LeaseLost,
    LogUnavailable,
    MessageId,
    PartitionRefused,
    QueryRefused,
    StoreUnavailable,
    Topic,
    TopicKind,
)

from .clock import Clock, SystemClock
from .log import Log, Message, Reader
from .pipeline import Pipeline
from .runtime import collect_rarely, provision
from .settings import Settings, open_log

IDLE_SECONDS: Final = 0.05
"""The pause when no partition has anything new: how much later a row may be visible."""

RETRY_SECONDS: Final = 5.0
"""How long a partition that was lost is left alone at least, and twice that at most."""

THREADS: Final = 4
"""While ClickHouse takes in one partition's range, Python reads another's. Of the rate of ready-made blocks, one thread
reached 46 %, two 62 %, four 70 %."""


class _InTurn:
    """A reader that reads while no other one does.

    SQLite lets go of the interpreter's lock at every row, so two threads that read at once hand it to each other at
    every row, and spend more time on waiting for it than on reading.
    """

    def __init__(self, reader: Reader, turn: threading.Lock) -> None:
        self._reader = reader
        self._turn = turn
        self.close = reader.close

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """The next messages, when it is this reader's turn; who may have to wait for them keeps nobody else waiting."""
        with nullcontext() if timeout_seconds else self._turn:
            return self._reader.read(messages_max=messages_max, timeout_seconds=timeout_seconds)


class Projector:
    """Mirrors all aggregates of a pipeline, one range of one partition after the other."""

    def __init__(
        self,
        pipeline: Pipeline,
        log: Log,
        store: Store,
        settings: Settings,
        *,
        clock: Clock,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._log = log
        self._store = store
        self._clock = clock
        self._failpoint = failpoint
        self._folder = settings.data.absolute() / "blocks"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._mirrors = {aggregate: self._mirror(aggregate) for aggregate in pipeline.aggregates}
        self._loops: dict[tuple[str, int], RangeLoop | None] = {}
        self._open_at: dict[tuple[str, int], float] = {}
        self._reading = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="magnetar-mirror")
        self._logger = structlog.get_logger("magnetar.projector").bind(context=pipeline.name)

    def _mirror(self, aggregate: str) -> Mirror:
        topic = self._pipeline.topic(aggregate, TopicKind.EVENTS)
        return Mirror(
            self._store,
            self._pipeline.schemas[aggregate],
            partitions=self._pipeline.partitions,
            schema_text=lambda number: self._log.schema(topic, number),
            folder=self._folder,
            failpoint=self._failpoint,
        )

    def prepare(self) -> None:
        """Create what is missing of databases, tables and views. Raises DeclarationError for a wrong projection."""
        for statement in (*ADMIN_DEFINITIONS, f"CREATE DATABASE IF NOT EXISTS {quoted(self._pipeline.name)}"):
            self._store.command(statement)
        for mirror in self._mirrors.values():
            mirror.prepare()
        made = views([mirror.tables for mirror in self._mirrors.values()])
        for statement in made.values():
            self._store.command(statement)
        taken = {*made, *RESERVED}
        for projection in self._pipeline.projections:
            if issubclass(projection, Sql):
                create_view(self._store, self._pipeline.name, projection, taken)

    def open(self) -> None:
        """Take the lease of every partition, and replay the range that each was at."""
        for aggregate in self._mirrors:
            for partition in range(self._pipeline.partitions):
                of = (aggregate, partition)
                self._loops[of], self._open_at[of] = None, self._clock.monotonic()
                self._step_one(of)

    def open_used(self) -> None:
        """The same for the partitions that are not open yet and have something: in tests they are few."""
        for aggregate in self._mirrors:
            topic = self._pipeline.topic(aggregate, TopicKind.EVENTS)
            for partition in range(self._pipeline.partitions):
                of = (aggregate, partition)
                if of not in self._loops and self._log.end(topic, partition) is not None:
                    self._open_one(of)

    def _open_one(self, of: tuple[str, int]) -> None:
        aggregate, partition = of
        opener = self._opener(self._pipeline.topic(aggregate, TopicKind.EVENTS), partition)
        nonce = random.SystemRandom().randbytes(16).hex()
        self._loops[of] = RangeLoop(self._mirrors[aggregate], partition, opener, nonce=nonce, failpoint=self._failpoint)

    def _open_again(self, of: tuple[str, int]) -> int:
        """Take back a partition that was lost, after a pause: its new owner may be gone, or ClickHouse back."""
        if self._clock.monotonic() >= self._open_at[of]:
            self._open_one(of)
        return 0

    def _opener(self, topic: Topic, partition: int) -> Callable[[MessageId | None], Feed]:
        return lambda after: _InTurn(self._log.reader(topic, partition, after=after), self._reading)

    def step(self) -> int:
        """Insert the next range of each partition; returns how many commits they have together."""
        return sum(self._threads.map(self._step_one, list(self._loops)))

    def _step_one(self, of: tuple[str, int]) -> int:
        aggregate, partition = of
        loop = self._loops[of]
        try:
            if loop is None:
                return self._open_again(of)
            count = loop.step()
        except (LeaseLost, StoreUnavailable, QueryRefused, LogUnavailable, PartitionRefused) as error:
            self._logger.warning(
                "partition lost", aggregate=aggregate, partition=partition, what=error.what, cure=error.cure
            )
            self._loops[of] = None
            self._open_at[of] = self._clock.monotonic() + RETRY_SECONDS * (1 + random.SystemRandom().random())
            if loop is not None:
                loop.close()
            return 0
        if count:
            self._logger.debug("mirrored", aggregate=aggregate, partition=partition, number=loop.number)
        return count

    @property
    def lost(self) -> list[str]:
        """The partitions that were lost, and are left alone for a while."""
        return [f"{aggregate}/{partition}" for (aggregate, partition), loop in self._loops.items() if loop is None]

    def close(self) -> None:
        """Let go of the log."""
        self._threads.shutdown()
        for loop in self._loops.values():
            if loop is not None:
                loop.close()
        self._loops.clear()


def run_projector(
    pipeline: Pipeline,
    settings: Settings,
    *,
    stopped: Callable[[], bool],
    failpoint: Callable[[str], None] | None = None,
) -> None:
    """Mirror the pipeline in one process, and answer queries on loopback, until `stopped`.

    Tests crash or freeze the process with `failpoint`.
    """
    collect_rarely()
    clock = SystemClock()
    log = open_log(settings, clock)
    try:
        provision(pipeline, log, kinds=[TopicKind.EVENTS])  # its role may see nothing else
        store = Store(embedded_dsn(settings.data))
        limits = QueryLimits(seconds_max=settings.query_seconds_max, memory_bytes_max=settings.query_memory_bytes_max)
        front = HttpFront(store.reader(limits), settings.data, port=settings.query_port)
        projector = Projector(pipeline, log, store, settings, clock=clock, failpoint=failpoint)
        try:
            projector.prepare()
            url = front.start()
            structlog.get_logger("magnetar.projector").info("queries are answered", url=url)
            projector.open()
            while not stopped():
                if not projector.step():
                    clock.sleep(IDLE_SECONDS)
        finally:
            front.close()
            projector.close()
            store.close()
    finally:
        log.close()
