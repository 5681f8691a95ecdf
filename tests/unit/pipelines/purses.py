"""A pipeline for the clients' tests, in a folder, with workers that come and go."""

import itertools
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from magnetar.aggregates import Aggregate
from magnetar.pipelines import Client, Pipeline, SyncClient
from magnetar.pipelines.clock import Clock, SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.schemas import Command, Event, Meta, ReadRule, Rejection, TopicKind, Verdict, uuid7
from magnetar.schemas.commit import Commit, CommitCodec, read_head

PARTITIONS = 2


class Pay(Command):
    amount: int


class Paid(Event):
    total: int
    actor: str | None
    correlation_id: str | None


class Twice(Event):
    pass


class Broke(Rejection):
    limit: int


class Purse(Aggregate):
    total: int = 0

    def execute(self, command: Pay, meta: Meta) -> Paid | tuple[Paid, Twice] | Broke | None:
        paid = Paid(self.total + command.amount, meta.actor, meta.correlation_id)
        match command.amount:
            case 0:
                return None
            case 2:
                return paid, Twice()
            case 13:
                raise RuntimeError("unlucky")
            case amount if amount > 10_000:
                return Broke(10_000)
            case _:
                return paid

    def apply(self, event: Paid | Twice) -> Self:
        return self.replace(total=event.total) if isinstance(event, Paid) else self


class Knock(Command):
    pass


class Knocked(Event):
    pass


class Door(Aggregate):
    knocks: int = 0

    def execute(self, command: Knock) -> Knocked:
        return Knocked()

    def apply(self, event: Knocked) -> Self:
        return self.replace(knocks=self.knocks + 1)


purses = Pipeline("purses", aggregates=[Purse, Door], partitions=PARTITIONS)


class LateClock(SystemClock):
    """A clock that is some minutes ahead."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes

    def now_ms(self) -> int:
        return super().now_ms() + int(self.minutes * 60_000)


_names = (f"w{n}" for n in itertools.count())
_randomness = itertools.count(1)


def new_id(minutes_ago: float = 0) -> str:
    """A command id, made now or some time ago."""
    return uuid7(SystemClock().now_ms() - int(minutes_ago * 60_000), next(_randomness))


class Place:
    """A data folder with the topics of `purses`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(data=folder)
        log = SqliteLog(folder, SystemClock())
        provision(purses, log)
        log.close()

    def client(self, clock: Clock | None = None) -> SyncClient:
        """A client to be closed by the test."""
        return SyncClient(purses, settings=self.settings, clock=clock)

    def async_client(self) -> Client:
        """The same for asyncio."""
        return Client(purses, settings=self.settings)

    @contextmanager
    def working(self) -> Generator[None]:
        """A worker on a thread."""
        log, stop, clock = SqliteLog(self.folder, SystemClock()), threading.Event(), SystemClock()
        workers = workers_of(purses, log, name=next(_names), clock=clock)
        thread = threading.Thread(target=decide_until, args=(stop.is_set, workers, clock))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            for worker in workers:
                worker.close()
            log.close()

    def commits(self, aggregate: str = "Purse") -> list[Commit]:
        """What counts of all partitions."""
        return list(self._commits(aggregate))

    def _commits(self, aggregate: str) -> Iterator[Commit]:
        log, codec = SqliteLog(self.folder, SystemClock()), CommitCodec(purses.schemas[aggregate])
        for partition in range(PARTITIONS):
            rule = ReadRule()
            reader = log.reader(purses.topic(aggregate, TopicKind.EVENTS), partition, after=None)
            while messages := reader.read(messages_max=10_000, timeout_seconds=0):
                for message in messages:
                    number, owner, _ = read_head(message.payload)
                    if rule.judge(number, owner) is Verdict.COUNTS:
                        yield codec.decode(message.payload)
        log.close()

    def commands(self) -> int:
        """How many commands stand on the topic of the purses."""
        log, topic = SqliteLog(self.folder, SystemClock()), purses.topic("Purse", TopicKind.COMMANDS)
        ends = [log.end(topic, partition) for partition in range(PARTITIONS)]
        log.close()
        return sum(end.ledger for end in ends if end is not None)
