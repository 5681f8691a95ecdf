"""`magnetar run -w N` on a real broker, seen from outside: its processes, and what the log says of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

from magnetar.pipelines import Client, Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.settings import Settings
from magnetar.schemas import LogUnavailable, ReadRule, TopicKind, Verdict, partition_of
from magnetar.schemas.commit import read_head

from tests.e2e.conftest import Shell
from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Paid, Pay, Purse

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 8
LONG = 240.0

MODULE = """
import sys
sys.path.append({root!r})
from magnetar.pipelines import Pipeline
from tests.unit.pipelines.purses import Purse
purses = Pipeline({context!r}, aggregates=[Purse], partitions={partitions})
"""


class Crew:
    """Some workers under a supervisor, a client that asks them, and the log that they write."""

    def __init__(self, broker: Existing, shell: Shell, *, partitions: int = PARTITIONS) -> None:
        self.context = f"c{uuid.uuid4().hex[:12]}"
        self.pipeline = Pipeline(self.context, aggregates=[Purse], partitions=partitions)
        self.settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
        self.shell = shell
        self.log = PulsarLog(broker.service_url, broker.admin_url, clock=SystemClock())
        self.commands = self.pipeline.topic("Purse", TopicKind.COMMANDS)
        self.events = self.pipeline.topic("Purse", TopicKind.EVENTS)
        ids = (f"p{n}" for n in count())
        self.ids = [next(id for id in ids if partition_of(id, partitions) == p) for p in range(partitions)]
        """An aggregate for each partition."""
        text = MODULE.format(root=str(ROOT), context=self.context, partitions=partitions)
        (shell.folder / "crew.py").write_text(text)
        shell.environment |= {"MAGNETAR_BROKER": broker.service_url, "MAGNETAR_BROKER_ADMIN": broker.admin_url}
        self.asked = 0
        self._client = Client(self.pipeline, settings=self.settings)
        self._loop = asyncio.new_event_loop()

    def run(self, workers: int) -> None:
        """Start them, and wait until each has its share."""
        self.supervisor = self.shell.start("run", "crew", "-w", str(workers))
        self.eventually(lambda: self.is_spread(workers), f"{workers} workers share the partitions evenly")

    def eventually(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds."""
        self.shell.eventually(holds, what, LONG)

    def active(self) -> list[str | None]:
        """By partition, whom the broker names."""
        try:
            return [each.active for each in self.log.backlog(self.commands)]
        except LogUnavailable:  # the supervisor is still making the topic
            return []

    def is_spread(self, workers: int) -> bool:
        """Whether all partitions are shared out, and nobody has two more than another."""
        shares = Counter(self.active())
        return None not in shares and len(shares) == workers and max(shares.values()) - min(shares.values()) <= 1

    def partitions_of(self, name: str) -> list[int]:
        """Whose active consumer has this name."""
        return [partition for partition, active in enumerate(self.active()) if active == name]

    def names(self) -> list[str]:
        """Of the workers that have partitions, the one with most of them first."""
        return [name for name, _ in Counter(name for name in self.active() if name is not None).most_common()]

    def ask(self, partitions: Iterable[int]) -> float:
        """Ask for one payment on each of these partitions, all at once; returns the seconds until the last answer."""
        asked = list(partitions)

        async def all_at_once() -> None:
            asks = (self._client.ask(Purse, self.ids[p], Pay(1), timeout_seconds=LONG) for p in asked)
            receipts = await asyncio.gather(*asks)
            assert all(isinstance(receipt.outcome, Paid) for receipt in receipts)

        started = time.monotonic()
        self._loop.run_until_complete(all_at_once())
        self.asked += len(asked)
        return time.monotonic() - started

    def claims(self) -> list[int]:
        """By partition, how often somebody became its owner. Fails if the log is not what was asked for."""
        found, paid = [], 0
        for partition in range(self.pipeline.partitions):
            rule, claims, end = ReadRule(), 0, self.log.end(self.events, partition)
            reader = self.log.reader(self.events, partition, after=None)
            while end is not None:
                messages = reader.read(messages_max=1000, timeout_seconds=5)
                for message in messages:
                    number, owner, _ = read_head(message.payload)
                    verdict = rule.judge(number, owner)
                    claims += verdict is Verdict.CLAIM
                    paid += verdict is Verdict.COUNTS
                if not messages or messages[-1].id >= end:
                    break
            reader.close()
            found.append(claims)
        assert paid == self.asked
        return found

    def has_settled(self) -> bool:
        """Whether every partition has the owner that it had, after ten questions to each."""
        before = self.claims()
        for _ in range(10):
            self.ask(range(self.pipeline.partitions))
        return self.claims() == before

    def close(self) -> None:
        """Let go of the log; the shell ends the processes."""
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
        self.log.close()


def pid_of(name: str) -> int:
    """A worker is named after its host, its process, and a random number."""
    return int(name.split("-")[-2])


def send(name: str, number: signal.Signals) -> None:
    """Send a worker's process a signal."""
    os.kill(pid_of(name), number)


def say(what: str, seconds: float, *, below: float) -> None:
    """Print a time, so that the docs can state it (pytest -s), and hold it against a generous limit."""
    print(f"\n{what}: {seconds:.1f} s")
    assert seconds < below, what
