"""A small pipeline on the embedded log, with workers that a test lets work."""

import random
from pathlib import Path
from typing import Any, Self

from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Command, Event, Rejection, TopicKind


class Add(Command):
    amount: int


class Added(Event):
    total: int


class TooMuch(Rejection):
    total: int


UNLUCKY = {13}
"""The amounts at which the brain raises; a test mends it by taking them out."""


class Tally(Aggregate):
    total: int = 0

    def execute(self, command: Add) -> Added | TooMuch | None:
        if command.amount in UNLUCKY:
            raise RuntimeError("unlucky")
        if command.amount > 100:
            return TooMuch(self.total)
        return Added(self.total + command.amount) if command.amount else None

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


tallies = Pipeline("tallies", aggregates=[Tally], partitions=2)


class Rig:
    """A log in a folder, one worker, and a client."""

    def __init__(self, folder: Path, pipeline: Pipeline = tallies) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.log = SqliteLog(folder, self.clock)
        provision(pipeline, self.log)
        self.client = SyncClient(pipeline, settings=Settings(data=folder))
        self.worker = Worker(
            self.log,
            Tally,
            pipeline.schemas["Tally"],
            partitions=2,
            name="w1",
            clock=self.clock,
            random=random.SystemRandom(),
        )

    def work(self) -> None:
        """Let the worker decide what is there."""
        while self.worker.step(timeout_seconds=0.3):
            pass

    def send(self, *amounts: int, id: str = "a", **more: Any) -> None:
        """Send commands, and let them be decided."""
        for amount in amounts:
            self.client.send(Tally, id, Add(amount), **more)
        self.work()

    def publish(self, partition: int, key: str, payload: bytes) -> None:
        """Put bytes on the command topic, and let them be decided."""
        schema = tallies.schemas["Tally"].command_json
        publisher = self.log.publisher(tallies.topic("Tally", TopicKind.COMMANDS), schema=schema)
        publisher.publish(partition, [Entry(key, payload)], timeout_seconds=5)
        publisher.close()
        self.work()

    def close(self) -> None:
        """Let go of everything."""
        self.worker.close()
        self.client.close()
        self.log.close()
