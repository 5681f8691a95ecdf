"""A pipeline of purses and doors on a real Pulsar, and whoever works on it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx
import pulsar
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.clock import Clock, SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.history import log_of
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Topic, TopicKind, partition_of
from magnetar.schemas.commit import Commit, CommitCodec

from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Door, Knock, Paid, Pay, Purse

LONG = 240.0


class Yard:
    """A context of its own on the broker, with purses and a door, and whatever looks at it."""

    def __init__(self, broker: Existing, open_log: Callable[..., PulsarLog], *, partitions: int = 2) -> None:
        self.broker = broker
        self.open_log = open_log
        self.log = open_log()
        self.pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse, Door], partitions=partitions)
        self.settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
        self.commands, self.events = (self.topic("Purse", kind) for kind in (TopicKind.COMMANDS, TopicKind.EVENTS))
        ids = (f"p{n}" for n in count())
        self.ids = [next(id for id in ids if partition_of(id, partitions) == p) for p in range(partitions)]
        """An aggregate for each partition."""
        provision(self.pipeline, self.log)

    def topic(self, aggregate: str, kind: TopicKind) -> Topic:
        return self.pipeline.topic(aggregate, kind)

    def client(self, clock: Clock | None = None, **settings: Any) -> SyncClient:
        """A client to be closed by the test."""
        return SyncClient(self.pipeline, settings=self.settings.model_copy(update=settings), clock=clock)

    def pay(self, partition: int = 0, amount: int = 1) -> Paid:
        """Ask for a payment there."""
        with self.client() as client:
            outcome = client.ask(Purse, self.ids[partition], Pay(amount), timeout_seconds=LONG).outcome
        assert isinstance(outcome, Paid)
        return outcome

    def knock(self) -> int:
        """Ask the other aggregate, which is healthy; returns its version."""
        with self.client() as client:
            return client.ask(Door, "a", Knock(), timeout_seconds=LONG).version

    @contextmanager
    def working(self, clock: Clock | None = None) -> Generator[dict[str, Worker]]:
        """Workers for both aggregates on a thread, by aggregate. Fails if the thread does."""
        with working(self.pipeline, self.open_log(), clock or SystemClock()) as workers:
            yield workers

    def commits(self) -> list[Commit]:
        """Of the purses, all that count."""
        return commits(self.pipeline, self.log)

    def admin(self, method: str, path: str, body: Any = None) -> None:
        """What an administrator does by hand."""
        answer = httpx.request(method, f"{self.broker.admin_url}/admin/v2{path}", json=body, timeout=60)
        assert answer.is_success, answer.text

    def delete(self, topic: Topic) -> None:
        """Delete a topic under everybody's hands."""
        self.admin("DELETE", f"/persistent/public/{topic}/partitions?force=true")

    def delete_partition(self, topic: Topic, partition: int) -> None:
        """Delete one partition, of which the topic goes on to say that it has it."""
        self.admin("DELETE", f"/persistent/public/{topic}-partition-{partition}?force=true")

    @contextmanager
    def foreign(self, topic: Topic, partition: int, **options: Any) -> Iterator[Any]:
        """A producer that somebody else wrote."""
        logger = pulsar.FileLogger(pulsar.LoggerLevel.Error, "/dev/null")
        client = pulsar.Client(self.broker.service_url, operation_timeout_seconds=15, logger=logger)
        try:
            yield client.create_producer(f"persistent://public/{topic}-partition-{partition}", **options)
        finally:
            client.close()


@contextmanager
def working(pipeline: Pipeline, log: PulsarLog, clock: Clock) -> Generator[dict[str, Worker]]:
    """A pipeline's workers on a thread, by aggregate. Fails if the thread does."""
    stop = threading.Event()
    workers = workers_of(pipeline, log, name=f"w{uuid.uuid4().hex[:8]}", clock=clock)
    with ThreadPoolExecutor(1) as thread:
        deciding = thread.submit(decide_until, stop.is_set, workers, clock)
        try:
            yield dict(zip(pipeline.aggregates, workers, strict=True))
        finally:
            stop.set()
            wait([deciding])
            for worker in workers:
                worker.close()
        deciding.result()


def commits(pipeline: Pipeline, log: PulsarLog) -> list[Commit]:
    """Of the purses of a pipeline, all that count."""
    codec, topic = CommitCodec(pipeline.schemas["Purse"]), pipeline.topic("Purse", TopicKind.EVENTS)
    return [codec.decode(m.payload) for p in range(pipeline.partitions) for m, _ in log_of(log, topic, p)]
