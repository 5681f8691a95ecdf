"""The embedded log: a SQLite file per topic partition, shared by any number of processes on one machine."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from magnetar.schemas import (
    LogUnavailable,
    MessageId,
    MessageRefused,
    OwnershipLost,
    SettingsError,
    Topic,
)

from ..clock import Clock
from ..log import Backlog, Entry, Message, Ownership, Run, Stored, TopicDescription
from ..preflight import Finding
from ..provisioning import Roles, Step, WantedTopic
from .sqlite_consumer import SqliteConsumer, backlog
from .sqlite_files import RESTORE, Folder, canonical, connect, polling, read_messages, read_run, rows_of, transaction
from .sqlite_inbox import SqliteInbox, deliver
from .sqlite_owner import last_owner, write_owner
from .sqlite_plan import findings, steps

MESSAGE_BYTES_MAX: Final = 5 * 1024 * 1024 - 64 * 1024
"""As on a Pulsar with default settings, less room for its metadata: what works embedded works there."""

T = TypeVar("T", bound="Closing")

FENCE_TIMEOUT_SECONDS: Final = 30.0
"""SQLite gives its lock to whoever asks next, and a busy owner asks all the time: a fence may have to try often."""

TRIM_TIMEOUT_SECONDS: Final = 5.0
READER_CACHE_KB: Final = 128
"""How many pages of its file a reader keeps: it reads them in their order, each once. SQLite's 2 MB would be there for
each table and each of its partitions."""

FROZEN_SECONDS: Final = 1.0
"""How long an owner, or who wants to become it, waits for the transaction of a process that is stopped: a worker has
other partitions to look after meanwhile. A busy one is waited for longer: SQLite gives its lock to nobody in turn."""

_as_owner = partial(transaction, frozen_seconds=FROZEN_SECONDS)

_INSERT = "INSERT INTO messages (key, payload, published_at_ms, schema) VALUES (?, ?, ?, ?)"


class SqliteLog:
    """The log in a folder. Safe to share between threads; appenders, consumers and readers are for one thread each."""

    def __init__(
        self, folder: Path, clock: Clock, *, make: bool = True, message_bytes_max: int = MESSAGE_BYTES_MAX
    ) -> None:
        """Without `make`, a folder that is not there is refused with DataFolderError."""
        self.message_bytes_max = message_bytes_max
        self._folder = Folder(folder, make=make)
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: weakref.WeakSet[Closing] = weakref.WeakSet()

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """Create the topic if it is missing and register the schema."""
        self._folder.provision(topic, partitions=partitions, schema=schema)

    def plan(self, topics: Sequence[WantedTopic], _roles: Roles) -> list[Step]:
        """What is to be done in the folder; it knows no roles."""
        return list(steps(self._folder, topics))

    def examine(self, topics: Sequence[WantedTopic]) -> list[Finding]:
        """What of the folder is not as it should be."""
        return list(findings(self._folder, topics))

    def describe(self, topic: Topic) -> TopicDescription:
        """What the folder knows of the topic."""
        return self._folder.describe(topic)

    def schema(self, topic: Topic, number: int) -> str:
        """The schema's text under this number."""
        schemas = self._folder.schemas(topic)
        if not 1 <= number <= len(schemas):
            raise LogUnavailable(
                f"{topic} has no schema number {number}.", cure=f"The data folder is not complete. {RESTORE}"
            )
        return schemas[number - 1]

    def publisher(self, topic: Topic, *, schema: str) -> SqlitePublisher:
        """A way to publish to the topic."""
        return self._keep(SqlitePublisher(self, topic, self._number_of(topic, schema)))

    def consumer(self, topic: Topic, *, name: str) -> SqliteConsumer:
        """Take part in sharing out the topic's partitions."""
        partitions = self.describe(topic).partitions
        return self._keep(SqliteConsumer(self._folder, topic, partitions, name, self._clock))

    def share(self, topic: Topic, *, name: str, group: str = "") -> SqliteConsumer:
        """Take part in sharing out the partitions of an event topic: as workers do, and receive nothing."""
        partitions = self.describe(topic).partitions
        registry = self._folder.registry(topic, group)
        return self._keep(SqliteConsumer(self._folder, topic, partitions, name, self._clock, registry=registry))

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> SqliteAppender:
        """Write down a new owner; from then on every append of an older one fails within its own transaction."""
        return self._keep(SqliteAppender(self, topic, partition, self._number_of(topic, schema), name))

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> SqliteReader:
        """Read the partition behind this message, or from its start."""
        path = self._folder.partition(topic, partition)
        return self._keep(SqliteReader(path, 0 if after is None else after.ledger, self._clock))

    def end(self, topic: Topic, partition: int) -> MessageId | None:
        """The last message of the partition file."""
        path = self._folder.partition(topic, partition)
        with closing(connect(path)) as connection:
            ((last,),) = rows_of(connection, path, "SELECT max(offset) FROM messages")
        return None if last is None else MessageId(last)

    def trim(self, topic: Topic, partition: int, *, through: MessageId) -> None:
        """Delete what stands there, but never the last message: offsets go on from it."""
        path = self._folder.partition(topic, partition)
        with closing(connect(path)) as connection, _as_owner(connection, path, TRIM_TIMEOUT_SECONDS):
            connection.execute(
                "DELETE FROM messages WHERE offset <= ? AND offset < (SELECT max(offset) FROM messages)",
                (through.ledger,),
            )

    def backlog(self, topic: Topic) -> list[Backlog]:
        """How far the consumers of a command topic are, by partition."""
        return backlog(self._folder, topic, self.describe(topic).partitions, self._clock)

    def owners(self, topic: Topic) -> list[Ownership | None]:
        """Who was fenced in last, by partition."""
        return [
            last_owner(self._folder.partition(topic, partition)) for partition in range(self.describe(topic).partitions)
        ]

    def inbox(self) -> SqliteInbox:
        """Open an inbox for replies."""
        return self._keep(SqliteInbox(self._folder.replies, self._clock))

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        """Put replies into an inbox."""
        deliver(self._folder.replies, address, payloads)

    def close(self) -> None:
        """Close everything that was opened through this log."""
        with self._lock:
            opened = list(self._opened)
        for each in opened:
            each.close()

    def _keep(self, opened: T) -> T:
        with self._lock:
            self._opened.add(opened)
        return opened

    def _number_of(self, topic: Topic, schema: str) -> int:
        schemas = self._folder.schemas(topic)
        text = canonical(schema)
        if text not in schemas:
            raise SettingsError(
                f"The log does not know this code's schema of {topic} yet: nothing was sent.",
                cure="Run `magnetar dev` or `magnetar provision` with the pipeline's module, which registers it.",
            )
        return schemas.index(text) + 1

    def now_ms(self) -> int:
        """The time, in milliseconds since 1970."""
        return self._clock.now_ms()

    def check_sizes(self, entries: Sequence[Entry]) -> None:
        """Raise MessageRefused if one of the entries is over the limit."""
        for entry in entries:
            if len(entry.payload) > self.message_bytes_max:
                raise MessageRefused(
                    f"A message of {len(entry.payload):,} bytes was not stored; the limit: {self.message_bytes_max:,}.",
                    cure="Keep large things elsewhere, and name them in the message.",
                )

    def store(self, connection: sqlite3.Connection, schema: int, entries: Sequence[Entry]) -> None:
        """Insert entries within a transaction, stamped with the clock."""
        now_ms = self._clock.now_ms()
        connection.executemany(_INSERT, [(key, payload, now_ms, schema) for key, payload in entries])

    def partition_file(self, topic: Topic, partition: int) -> Path:
        """Where a partition is."""
        return self._folder.partition(topic, partition)


class Closing(Protocol):
    """What was opened through the log."""

    def close(self) -> None:
        """Let go."""
        ...


class SqlitePublisher:
    """Puts commands into partition files. Safe to share between threads, which wait for each other per partition."""

    def __init__(self, log: SqliteLog, topic: Topic, schema: int) -> None:
        self._log = log
        self._topic = topic
        self._schema = schema
        self._lock = threading.Lock()
        self._files: dict[int, _PublisherFile] = {}

    def publish(self, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        """Store the entries in one transaction."""
        self._log.check_sizes(entries)
        with self._lock:
            file = self._files.get(partition)
            if file is None:
                file = self._files[partition] = _PublisherFile(self._log.partition_file(self._topic, partition))
        with file.lock:
            connection = file.connection()
            with transaction(connection, file.path, timeout_seconds):
                self._log.store(connection, self._schema, entries)

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            files = list(self._files.values())
            self._files.clear()
        for file in files:
            with file.lock:
                file.close()


class _PublisherFile:
    """One partition's file, opened when it is used; `lock` is held around every use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def connection(self) -> sqlite3.Connection:
        """The open file. A deleted one would take in everything, and lose it: it is opened anew. Raises
        DataFolderError if it is gone."""
        if self._connection is not None and _inode_of(self.path) != self._inode:
            self.close()
        if self._connection is None:
            self._connection = connect(self.path)
            self._inode = _inode_of(self.path)
        return self._connection

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _inode_of(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1


class SqliteAppender:
    """The one writer of a partition file, as long as its nonce is the one that stands in the file."""

    def __init__(self, log: SqliteLog, topic: Topic, partition: int, schema: int, name: str) -> None:
        self._log = log
        self._schema = schema
        self._path = log.partition_file(topic, partition)
        self._nonce = secrets.token_hex(16)
        self._connection = connect(self._path)
        try:
            with _as_owner(self._connection, self._path, FENCE_TIMEOUT_SECONDS):
                write_owner(self._connection, self._nonce, name, log.now_ms())
        except BaseException:
            self._connection.close()
            raise

    def begin(self, entries: Sequence[Entry], *, timeout_seconds: float) -> Stored:
        """Store the entries at once."""
        return Stored(self.append(entries, timeout_seconds=timeout_seconds))

    def append(self, entries: Sequence[Entry], *, timeout_seconds: float) -> MessageId:
        """Store the entries in one transaction, in which the owner is checked too."""
        self._log.check_sizes(entries)
        with _as_owner(self._connection, self._path, timeout_seconds):
            nonce, name = self._connection.execute("SELECT nonce, name FROM owner").fetchone()
            if nonce != self._nonce:
                raise OwnershipLost(f"{self._path.parent.name} partition {self._path.stem} belongs to {name} now.")
            self._log.store(self._connection, self._schema, entries)
            (last,) = self._connection.execute("SELECT max(offset) FROM messages").fetchone()
        return MessageId(last)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class SqliteReader:
    """Follows a partition file by short reads."""

    def __init__(self, path: Path, after: int, clock: Clock) -> None:
        self._path = path
        self._after = after
        self._clock = clock
        self._connection = connect(path)
        self._connection.execute(f"PRAGMA cache_size={-READER_CACHE_KB}")

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages, looking again every few milliseconds while there are none."""
        for _ in polling(self._clock, timeout_seconds):
            if messages := read_messages(self._connection, self._path, self._after, messages_max):
                self._after = messages[-1].id.ledger
                return messages
        return []

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        """Return the payloads of the next messages of one schema."""
        for _ in polling(self._clock, timeout_seconds):
            if run := read_run(self._connection, self._path, self._after, messages_max):
                self._after = run.last.ledger
                return run
        return None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
