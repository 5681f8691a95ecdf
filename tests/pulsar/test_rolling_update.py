"""A new event type, or a new field, goes into a running context: two releases side by side, on a real registry."""

import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker, WorkerOptions
from magnetar.schemas import Command, Event, PartitionRefused

from tests.contract.log_contract import DEADLINE_SECONDS
from tests.pulsar_rig import Existing


class Add(Command):
    pieces: int


class Count(Command):
    """Emits what has been counted, so that a wrong fold is seen."""


class Added(Event):
    pieces: int


class AddedTwice(Event):
    pieces: int


class AddedTimes(Event, wire_name="Added"):
    pieces: int
    times: int = 1


class Counted(Event):
    pieces: int


class OldStock(Aggregate, wire_name="Stock"):
    pieces: int = 0

    def execute(self, command: Add | Count) -> Added | Counted:
        return Added(command.pieces) if isinstance(command, Add) else Counted(self.pieces)

    def apply(self, event: Added | Counted) -> Self:
        return self.replace(pieces=self.pieces + event.pieces) if isinstance(event, Added) else self


class NewStock(Aggregate, wire_name="Stock"):
    pieces: int = 0

    def execute(self, command: Add | Count) -> AddedTwice | Added | Counted:
        return AddedTwice(command.pieces) if isinstance(command, Add) else Counted(self.pieces)

    def apply(self, event: AddedTwice | Added | Counted) -> Self:
        match event:
            case AddedTwice(pieces):
                return self.replace(pieces=self.pieces + 2 * pieces)
            case Added(pieces):
                return self.replace(pieces=self.pieces + pieces)
            case Counted():
                return self


class TimesStock(Aggregate, wire_name="Stock"):
    pieces: int = 0

    def execute(self, command: Add | Count) -> AddedTimes | Counted:
        return AddedTimes(command.pieces, 2) if isinstance(command, Add) else Counted(self.pieces)

    def apply(self, event: AddedTimes | Counted) -> Self:
        return self.replace(pieces=self.pieces + counts(event)) if isinstance(event, AddedTimes) else self


def counts(event: Added | AddedTwice | AddedTimes) -> int:
    """How many pieces an event stands for."""
    match event:
        case AddedTimes(pieces, times):
            return times * pieces
        case AddedTwice(pieces):
            return 2 * pieces
        case Added(pieces):
            return pieces


def release(stock: type[Aggregate], context: str) -> Pipeline:
    return Pipeline(context, aggregates=[stock], partitions=1)


@contextmanager
def running(pipeline: Pipeline, log: PulsarLog, name: str) -> Iterator[Worker]:
    """A worker in a thread of its own."""
    provision(pipeline, log)
    ((aggregate, cls),) = pipeline.aggregates.items()
    worker = Worker(
        log,
        cls,
        pipeline.schemas[aggregate],
        partitions=1,
        name=name,
        clock=SystemClock(),
        random=random.SystemRandom(),
        options=WorkerOptions(pause_seconds=0.05),
    )
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            worker.step(timeout_seconds=0.1)
        worker.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        stop.set()
        thread.join(DEADLINE_SECONDS)


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("newer", "emits", "lacks"),
    [(NewStock, AddedTwice(1), "AddedTwice"), (TimesStock, AddedTimes(1, 2), r"Added\.times, which this code lacks")],
    ids=["an event type", "a field with a default"],
)
def test_an_old_worker_refuses_what_it_does_not_know_and_a_new_one_goes_on(
    open_log: Callable[..., PulsarLog], broker: Existing, newer: type[Any], emits: Event, lacks: str
) -> None:
    context = f"c{uuid.uuid4().hex[:12]}"
    old, new = release(OldStock, context), release(newer, context)
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    with running(old, open_log(), "b-old") as worker:
        with SyncClient(old, settings=settings) as client:
            assert client.ask(OldStock, "1", Add(3)).outcome == Added(3)
        with running(new, open_log(), "a-new"), SyncClient(new, settings=settings) as client:
            outcomes: list[Any] = []

            def new_has_taken_over() -> bool:  # the broker gives the partition to the first by name
                outcomes.append(client.ask(newer, "1", Add(1)).outcome)
                return bool(outcomes[-1] == emits)

            eventually(new_has_taken_over, "the new release takes over")
            total = 3 + sum(map(counts, outcomes))
            assert client.ask(newer, "1", Count()).outcome == Counted(total)
        assert worker.refused == {}
        with SyncClient(old, settings=settings) as client:
            client.send(OldStock, "1", Count())
        eventually(lambda: 0 in worker.refused, "the old release refuses the partition")
        assert isinstance(worker.refused[0], PartitionRefused)
        assert re.search(lacks, worker.refused[0].what)
        with running(new, open_log(), "c-new"), SyncClient(new, settings=settings) as client:
            assert client.ask(newer, "1", Count()).outcome == Counted(total)
