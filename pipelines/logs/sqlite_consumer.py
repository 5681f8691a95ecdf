"""Sharing out partitions among the processes of one machine, as Pulsar's Failover subscriptions do among many."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

import structlog
from magnetar.schemas import LogUnavailable, MagnetarError, MessageId, SettingsError, Topic

from ..clock import Clock
from ..log import Backlog, Batch, Message
from .sqlite_files import Folder, connect, polling, read_messages, rows_of, transaction

HEARTBEAT_SECONDS: Final = 0.5
ALIVE_SECONDS: Final = 3.0
"""A consumer whose last sign of life is older is passed over. A frozen one loses its partitions after this."""

LOOK_SECONDS: Final = 0.1
"""How old a consumer's knowledge of who is active may be while it receives."""

LOCK_TIMEOUT_SECONDS: Final = 0.3
RETRY_SECONDS: Final = 1.0
"""How long a locked registry is waited for, and when it is tried again: what could not be written is written later. A
transaction on it takes less than a millisecond."""


class SqliteConsumer:
    """One worker's part in a command topic.

    The active consumer of partition *i* is number *i mod N* of the N live ones that take part in it, by name. One is
    alive while its process exists and calls `receive` or `is_granted`: a worker that is stuck gives no sign of life.

    The registry is written by all of them, and one that is frozen within its transaction keeps the others from giving
    signs of life. Then the shares stay as they were: everybody goes on with its own partitions, those of the frozen one
    wait, acknowledgements are kept in memory, and nobody new can take part until that process goes on or is ended.
    """

    def __init__(
        self,
        folder: Folder,
        topic: Topic,
        partitions: int,
        name: str,
        clock: Clock,
        *,
        registry: Path | None = None,
    ) -> None:
        """`registry` is another one than the topic's own: of others, who share the partitions out once more."""
        self._paths = [folder.partition(topic, partition) for partition in range(partitions)]
        self._registry_path = registry or folder.registry(topic)
        self._registry = connect(self._registry_path)
        self._registry.execute("PRAGMA synchronous=NORMAL")  # a lost acknowledgement is a redelivery, and harmless
        self._connections = [connect(path) for path in self._paths]
        self._name = name
        self._clock = clock
        self._position: dict[int, int] = {}
        self._active: frozenset[int] = frozenset()
        self._left: set[int] = set()
        self._unwritten: dict[int, int] = {}
        self._locked = False
        self._retry_at = self._trusted_from = float("-inf")
        self._logger = structlog.get_logger("magnetar.consumer").bind(topic=str(topic), worker=name)
        self._turn = 0
        self._closed = False
        self._looked_at = self._beat_at = float("-inf")
        try:
            self._join()
        except BaseException:
            self._close_files()
            raise

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
        return partition in self._active and partition not in self._left

    def has_acknowledged(self, partition: int) -> bool:
        """Read the registry."""
        return self._acknowledged(partition) > 0

    def mine(self) -> frozenset[int]:
        """Read the registry: what a projector asks, which receives nothing. Counts as a sign of life."""
        self._look(at_once=True)
        return self._active - self._left

    def acknowledge(self, partition: int, through: MessageId) -> None:
        """Remember how far the partition is done."""
        self._unwritten[partition] = through.ledger
        with contextlib.suppress(MagnetarError):
            self._write()

    def release(self, partition: int) -> None:
        """Begin again behind what is acknowledged."""
        self._position.pop(partition, None)
        self._left.discard(partition)
        self._write()
        self._looked_at = float("-inf")

    def leave(self, partition: int) -> None:
        """Take no part in the partition until `release`."""
        self._position.pop(partition, None)
        self._left.add(partition)
        self._write()
        self._looked_at = float("-inf")

    def close(self) -> None:
        """Leave all partitions."""
        if self._closed:
            return
        self._closed = True
        with (
            contextlib.suppress(MagnetarError),
            transaction(self._registry, self._registry_path, LOCK_TIMEOUT_SECONDS),
        ):
            self._forget(self._name)
        self._close_files()

    def _close_files(self) -> None:
        self._registry.close()
        for connection in self._connections:
            connection.close()

    # --- who is active ----------------------------------------------------------------------------------------------

    def _join(self) -> None:
        with transaction(self._registry, self._registry_path, 5.0):
            alive = _alive(self._registry, self._registry_path, self._clock)
            if self._name in alive:
                raise SettingsError(
                    f"A worker called {self._name!r} is running already.", cure="Give each worker a name of its own."
                )
            for (name,) in self._registry.execute("SELECT name FROM consumers").fetchall():
                if name not in alive:
                    self._forget(name)
            self._write_rows()

    def _forget(self, name: str) -> None:
        self._registry.execute("DELETE FROM consumers WHERE name = ?", (name,))
        self._registry.execute("DELETE FROM absent WHERE name = ?", (name,))

    def _look(self, *, at_once: bool = False) -> None:
        """Give a sign of life when it is due, and find out for which partitions this consumer is active."""
        now = self._clock.monotonic()
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            self._write()
        if self._locked or now < self._trusted_from:
            return  # whoever seems dead may only have been kept from writing, as this one was
        if not at_once and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        active = _active(self._registry, self._registry_path, len(self._paths), self._clock)
        self._active = frozenset(partition for partition, name in enumerate(active) if name == self._name)
        for partition in list(self._position):
            if partition not in self._active:
                del self._position[partition]

    # --- messages ---------------------------------------------------------------------------------------------------

    def _next_batch(self, messages_max: int) -> Batch | None:
        count = len(self._paths)
        for step in range(count):
            partition = (self._turn + step) % count
            if partition in self._active - self._left and (messages := self._read(partition, messages_max)):
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

    # --- what the others have to know -------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write down all that is to be known of this consumer, now or, if the registry is locked, some time later."""
        now = self._clock.monotonic()
        if now < self._retry_at:
            return
        try:
            with transaction(self._registry, self._registry_path, LOCK_TIMEOUT_SECONDS):
                self._write_rows()
        except LogUnavailable as error:
            if not self._locked:
                self._logger.warning("the shares stay as they are", what=error.what, cure=error.cure)
            self._locked = True
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS
            return
        if self._locked:
            self._locked = False
            self._trusted_from = now + 2 * (RETRY_SECONDS + LOCK_TIMEOUT_SECONDS)
        self._beat_at = now
        self._unwritten.clear()

    def _write_rows(self) -> None:
        """A sign of life, the partitions that this consumer takes no part in, and how far each is done."""
        write, name = self._registry.executemany, self._name
        write(
            "INSERT OR REPLACE INTO consumers (name, pid, started, heartbeat_ms) VALUES (?, ?, ?, ?)",
            [(name, os.getpid(), _started(os.getpid()), self._clock.now_ms())],
        )
        write("DELETE FROM absent WHERE name = ?", [(name,)])
        write("INSERT INTO absent (name, partition) VALUES (?, ?)", [(name, partition) for partition in self._left])
        write(
            "INSERT INTO acknowledged (partition, offset) VALUES (?, ?) "
            "ON CONFLICT (partition) DO UPDATE SET offset = max(offset, excluded.offset)",
            list(self._unwritten.items()),
        )


def backlog(folder: Folder, topic: Topic, partitions: int, clock: Clock) -> list[Backlog]:
    """How far the consumers of a command topic are, looked at from outside."""
    path = folder.topic(topic) / "consumers.sqlite"
    with contextlib.closing(connect(path)) as registry:
        active = _active(registry, path, partitions, clock)
        acknowledged = dict(rows_of(registry, path, "SELECT partition, offset FROM acknowledged"))
    return [
        _backlog(folder.partition(topic, partition), active[partition], acknowledged.get(partition))
        for partition in range(partitions)
    ]


def _backlog(path: Path, active: str | None, acknowledged: int | None) -> Backlog:
    with contextlib.closing(connect(path)) as partition:
        sql = "SELECT count(*) FROM messages WHERE offset > ?"
        ((waiting,),) = rows_of(partition, path, sql, acknowledged or 0)
    return Backlog(active, None if acknowledged is None else MessageId(acknowledged), waiting)


def _alive(registry: sqlite3.Connection, path: Path, clock: Clock) -> list[str]:
    rows = rows_of(registry, path, "SELECT name, pid, started, heartbeat_ms FROM consumers")
    oldest_ms = clock.now_ms() - int(ALIVE_SECONDS * 1000)
    return sorted(name for name, pid, started, beat_ms in rows if beat_ms >= oldest_ms and _runs(pid, started))


def _active(registry: sqlite3.Connection, path: Path, partitions: int, clock: Clock) -> list[str | None]:
    """By partition, the active consumer: of those that live and take part in it."""
    alive = _alive(registry, path, clock)
    absent = set(rows_of(registry, path, "SELECT name, partition FROM absent"))
    active: list[str | None] = []
    for partition in range(partitions):
        taking_part = [name for name in alive if (name, partition) not in absent]
        active.append(taking_part[partition % len(taking_part)] if taking_part else None)
    return active


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
