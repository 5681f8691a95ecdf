"""A client that asks, and keeps every answer as it came."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.schemas import partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope

from examples.flights.data import Row, commands
from examples.flights.pipeline import flights
from tests.chaos.comparing import CODEC, COMMANDS, EVENTS, SCHEMA, registry, stored
from tests.counting import counting


class Asking:
    """Puts the commands of flights on their topic, and asks for an answer to each."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.log = SqliteLog(data, SystemClock())
        provision(flights, self.log)
        self.publisher = self.log.publisher(COMMANDS, schema=SCHEMA.command_json)
        self._inbox = self.log.inbox()
        self._codec = CommandCodec(SCHEMA)
        self.replies: list[bytes] = []

    def entries(self, rows: Iterable[Row]) -> dict[int, list[Entry]]:
        """The commands of these flights, by partition."""
        now_ms, found = SystemClock().now_ms(), dict[int, list[Entry]]()
        for sent in commands(rows):
            envelope = CommandEnvelope(
                sent.id,
                uuid7(now_ms, sent.key),
                now_ms * 1000,
                reply_to=self._inbox.address,
                metadata={"from": "chaos"},
            )
            entry = Entry(sent.id, self._codec.encode(envelope, sent.command))
            found.setdefault(partition_of(sent.id, flights.partitions), []).append(entry)
        return found

    def send(self, rows: Iterable[Row]) -> None:
        """Send them all."""
        for partition, entries in self.entries(rows).items():
            self.publisher.publish(partition, entries, timeout_seconds=240)

    def hear(self) -> list[bytes]:
        """All the answers so far."""
        while received := self._inbox.receive(timeout_seconds=0.2):
            self.replies += received
        return self.replies

    def is_done(self) -> bool:
        """Whether all commands are acknowledged."""
        done = dict(registry(self.data, "SELECT partition, offset FROM acknowledged"))
        ends = {partition: self.log.end(COMMANDS, partition) for partition in range(flights.partitions)}
        return all(end is None or done.get(partition, 0) >= end.ledger for partition, end in ends.items())

    def undecided(self) -> set[int]:
        """The partitions with commands that have no commit yet."""
        found = set[int]()
        for partition, (sent, events) in enumerate(stored(self.data)):
            commits = counting(events)
            last = CODEC.decode(commits[-1].payload).source.id.ledger if commits else 0
            if sent and sent[-1].id.ledger > last:
                found.add(partition)
        return found

    def owners(self) -> dict[int, str]:
        """Who owns each partition of the event topic."""
        return {p: owner_of(self.log.partition_file(EVENTS, p)) for p in range(flights.partitions)}

    def close(self) -> None:
        """Close the log."""
        self.log.close()


def owner_of(path: Path) -> str:
    """The name that stands in a partition's file as its owner's."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        row = file.execute("SELECT name FROM owner").fetchone()
    return "" if row is None else str(row[0])
