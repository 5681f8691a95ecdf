"""Sharing out partitions among the processes of one machine, as Pulsar's Failover subscriptions do among many."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from magnetar.schemas import MagnetarError, MessageId, SettingsError, Topic

from ..clock import Clock
from ..log import Batch, Message
from .sqlite_files import Folder, connect, polling, read_messages, rows_of, transaction

HEARTBEAT_SECONDS: Final = 0.5
ALIVE_SECONDS: Final = 3.0
"""A consumer whose last sign of life is older is passed over. A frozen one loses its partitions after this."""

LOOK_SECONDS: Final = 0.1
"""How old a consumer's knowledge of who is active may be while it receives."""


class SqliteConsumer:
    """One worker's part in a command topic.

    The active consumer of partition *i* is number *i mod N* of the N live ones that take part in it, by name. One is
    alive while its process exists and calls `receive` or `is_granted`: a worker that is stuck gives no sign of life.
    """

    def __init__(self, folder: Folder, topic: Topic, partitions: int, name: str, clock: Clock) -> None:
        self._paths = [folder.partition(topic, partition) for partition in range(partitions)]
        self._registry_path = folder.topic(topic) / "consumers.sqlite"
        self._registry = connect(self._registry_path)
        self._registry.execute("PRAGMA synchronous=NORMAL")  # a lost acknowledgement is a redelivery, and harmless
        self._connections = [connect(path) for path in self._paths]
        self._name = name
        self._clock = clock
        self._position: dict[int, int] = {}
        self._active: frozenset[int] = frozenset()
        self._turn = 0
        self._closed = False
        self._looked_at = self._beat_at = float("-inf")
        self._join()

    def receive(self, *, messages_max: int, timeout_seconds: float) -> Batch | None:
        """Wait for messages of any partition that this consumer is active for; partitions take turns."""
        for _ in polling(self._clock, timeout_seconds):
            self._look()
            if (batch := self._next_batch(messages_max)) is not None:
                return batch
        return None

    def is_granted(self, partition: int) -> bool:
        """Read the registry. Counts as a sign of life."""
        self._look(at_once=True)
        return partition in self._active

    def acknowledge(self, partition: int, through: MessageId) -> None:
        """Remember how far the partition is done."""
        with contextlib.suppress(MagnetarError):
            self._write(
                "INSERT INTO acknowledged (partition, offset) VALUES (?, ?) "
                "ON CONFLICT (partition) DO UPDATE SET offset = max(offset, excluded.offset)",
                partition,
                through.ledger,
            )

    def release(self, partition: int) -> None:
        """Begin again behind what is acknowledged."""
        self._position.pop(partition, None)
        self._write("DELETE FROM absent WHERE name = ? AND partition = ?", self._name, partition)
        self._looked_at = float("-inf")

    def leave(self, partition: int) -> None:
        """Take no part in the partition until `release`."""
        self._position.pop(partition, None)
        self._write("INSERT OR REPLACE INTO absent (name, partition) VALUES (?, ?)", self._name, partition)
        self._looked_at = float("-inf")

    def close(self) -> None:
        """Leave all partitions."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(MagnetarError):
            self._write("DELETE FROM consumers WHERE name = ?", self._name)
            self._write("DELETE FROM absent WHERE name = ?", self._name)
        self._registry.close()
        for connection in self._connections:
            connection.close()

    # --- who is active ----------------------------------------------------------------------------------------------

    def _join(self) -> None:
        with transaction(self._registry, self._registry_path, 5.0):
            alive = self._alive()
            if self._name in alive:
                raise SettingsError(
                    f"A worker called {self._name!r} is running already.", cure="Give each worker a name of its own."
                )
            for (name,) in self._registry.execute("SELECT name FROM consumers").fetchall():
                if name not in alive:
                    self._registry.execute("DELETE FROM consumers WHERE name = ?", (name,))
                    self._registry.execute("DELETE FROM absent WHERE name = ?", (name,))
        self._beat()

    def _alive(self) -> list[str]:
        rows = rows_of(self._registry, self._registry_path, "SELECT name, pid, started, heartbeat_ms FROM consumers")
        oldest_ms = self._clock.now_ms() - int(ALIVE_SECONDS * 1000)
        return sorted(name for name, pid, started, beat_ms in rows if beat_ms >= oldest_ms and _runs(pid, started))

    def _beat(self) -> None:
        self._beat_at = self._clock.monotonic()
        self._write(
            "INSERT OR REPLACE INTO consumers (name, pid, started, heartbeat_ms) VALUES (?, ?, ?, ?)",
            self._name,
            os.getpid(),
            _started(os.getpid()),
            self._clock.now_ms(),
        )

    def _look(self, *, at_once: bool = False) -> None:
        """Give a sign of life when it is due, and find out for which partitions this consumer is active."""
        now = self._clock.monotonic()
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            self._beat()
        if not at_once and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        alive = self._alive()
        absent = set(rows_of(self._registry, self._registry_path, "SELECT name, partition FROM absent"))
        self._active = frozenset(self._mine(alive, absent))
        for partition in list(self._position):
            if partition not in self._active:
                del self._position[partition]

    def _mine(self, alive: list[str], absent: set[tuple[object, ...]]) -> Iterable[int]:
        for partition in range(len(self._paths)):
            taking_part = [name for name in alive if (name, partition) not in absent]
            if taking_part and taking_part[partition % len(taking_part)] == self._name:
                yield partition

    # --- messages ---------------------------------------------------------------------------------------------------

    def _next_batch(self, messages_max: int) -> Batch | None:
        count = len(self._paths)
        for step in range(count):
            partition = (self._turn + step) % count
            if partition in self._active and (messages := self._read(partition, messages_max)):
                self._turn = partition + 1
                return Batch(partition, messages)
        return None

    def _read(self, partition: int, messages_max: int) -> list[Message]:
        after = self._position.get(partition)
        if after is None:
            after = self._position[partition] = self._acknowledged(partition)
        messages = read_messages(self._connections[partition], self._paths[partition], after, messages_max)
        if messages:
            self._position[partition] = messages[-1].id.ledger
        return messages

    def _acknowledged(self, partition: int) -> int:
        sql = "SELECT offset FROM acknowledged WHERE partition = ?"
        rows = rows_of(self._registry, self._registry_path, sql, partition)
        return int(rows[0][0]) if rows else 0

    def _write(self, sql: str, *values: object) -> None:
        with transaction(self._registry, self._registry_path, 5.0):
            self._registry.execute(sql, values)


def _started(pid: int) -> str:
    """When a process started, as Linux counts it: a pid alone may have been given to another one since."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _runs(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(pid) in (started, "")
