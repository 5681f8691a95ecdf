"""Pipelines on one embedded log, workers and a projector on threads, and what their logs come to without tables."""

import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.carrying_out import CarryingOut, Errand, Regenerating
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.history import log_of
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector_process import run_projector
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.settling import SettlingKeys, shown_quarantined
from magnetar.pipelines.wishes import Wish
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.quarantine import QuarantinedKey
from magnetar.projections.query import ask_endpoint, read_endpoint
from magnetar.schemas import TopicKind
from magnetar.schemas.commit import CommitCodec

from tests.chaos.processes import eventually

DEADLINE_SECONDS = 120.0


class Live:
    """A data folder, in which threads do what processes do otherwise."""

    def __init__(self, folder: Path, *pipelines: Pipeline) -> None:
        """Makes the topics of these pipelines."""
        self.settings = Settings(data=folder)
        self._clock = SystemClock()
        self.log = SqliteLog(folder, self._clock)
        for pipeline in pipelines:
            provision(pipeline, self.log)

    def client(self, pipeline: Pipeline) -> SyncClient:
        """A client to be closed by the test."""
        return SyncClient(pipeline, settings=self.settings)

    @contextmanager
    def working(self, *pipelines: Pipeline) -> Generator[None]:
        """Workers for all aggregates of these."""
        log = SqliteLog(self.settings.data, self._clock)
        workers = [each for pipeline in pipelines for each in workers_of(pipeline, log, name="w", clock=self._clock)]
        try:
            with _thread(lambda stopped: decide_until(stopped, workers, self._clock)):
                yield
        finally:
            for worker in workers:
                worker.close()
            log.close()

    @contextmanager
    def projecting(self, pipeline: Pipeline) -> Generator[None]:
        """A projector as it is in a process; it answers when this begins."""
        with _thread(lambda stopped: run_projector(pipeline, self.settings, stopped=stopped)):
            self.eventually(lambda: read_endpoint(self.settings.data) is not None)
            yield

    @property
    def endpoint(self) -> Endpoint:
        """Where the projector answers."""
        found = read_endpoint(self.settings.data)
        assert found is not None
        return found

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What the projector answers."""
        return [json.loads(line) for line in ask_endpoint(self.endpoint, sql, "JSONEachRow").splitlines()]

    def eventually(self, holds: Callable[[], bool]) -> None:
        """Wait for something that other threads do."""
        eventually(holds, "other threads come to it", seconds=DEADLINE_SECONDS)

    def facts(self, pipeline: Pipeline, aggregate: str) -> Iterator[tuple[str, int, Any]]:
        """Every event of an aggregate in the log: its aggregate's id, its version, itself."""
        codec, topic = CommitCodec(pipeline.schemas[aggregate]), pipeline.topic(aggregate, TopicKind.EVENTS)
        for partition in range(pipeline.partitions):
            for message, _ in log_of(self.log, topic, partition):
                commit = codec.decode(message.payload)
                for version, event in enumerate(commit.events, commit.version + 1):
                    yield commit.aggregate_id, version, event

    def rebuild(self, pipeline: Pipeline, *names: str) -> None:
        """As `magnetar rebuild` does it."""
        assert self._carry_out(pipeline, Regenerating(pipeline, names, Wish.REBUILD, lambda _: None))

    def quarantined(self, pipeline: Pipeline) -> list[QuarantinedKey]:
        """As `magnetar quarantined` lists it."""
        return shown_quarantined(self.rows, pipeline)

    def retry(self, pipeline: Pipeline) -> list[str]:
        """As `magnetar quarantined … retry --all` does it; the errors that were raised again."""
        errand = SettlingKeys(pipeline, self.quarantined(pipeline), is_drop=False, reason="", actor="")
        assert self._carry_out(pipeline, errand)
        return [said.error for _, said in errand.found.values() if said.error]

    def _carry_out(self, pipeline: Pipeline, errand: Errand) -> bool:
        return CarryingOut(pipeline, self.settings, errand, self._clock).run(lambda: False)


@contextmanager
def _thread(run: Callable[[Callable[[], bool]], object]) -> Generator[None]:
    """Raises at the end what it has met."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run, stop.is_set)
        try:
            yield
        finally:
            stop.set()
    running.result()
