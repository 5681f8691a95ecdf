"""The files of the embedded log: their layout, their creation, and what can be wrong with them."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import shutil
import sqlite3
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from magnetar.schemas import DataFolderError, LogUnavailable, MagnetarError, MessageId, SettingsError, Topic, TopicKind
from magnetar.schemas.evolution import check_evolution

from ..clock import Clock
from ..log import Message, Run, TopicDescription

FORMAT: Final = 1
"""The layout that this code writes. A folder of a higher one was written by a later Magnetar."""

_MARKER: Final = "magnetar.json"
_OTHERS: Final = ("dev.lock",)
"""What may stand in a new data folder before the marker does."""

_CHOOSE_ANOTHER: Final = "Choose another folder with --data or MAGNETAR_DATA."
_RUN_FIRST: Final = "Run the pipeline first, with `magnetar dev`, or name its folder with --data or MAGNETAR_DATA."
RESTORE: Final = "Restore the whole folder from a copy, or begin with an empty one."

_POLL_SECONDS: Final = (0.001, 0.001, 0.002, 0.002, 0.004)
"""Pauses between looks at a file: short when something was just there, at most 4 ms when nothing comes. A worker's look
at 16 partitions takes 0.1 ms: an idle one uses 2 % of a core, and a command waits for 2 ms on average."""

_PROVISION_TIMEOUT_SECONDS: Final = 10.0
"""How long another process may be creating topics. It takes some ten milliseconds."""

_SHM_BYTES: Final = 32 * 1024
"""What SQLite asks of the disk for the file `…-shm` of a database that is opened (sqlite.org/walformat.html, 2.3)."""

_PARTITION_SQL: Final = """
CREATE TABLE messages (
    offset INTEGER PRIMARY KEY, key TEXT NOT NULL, payload BLOB NOT NULL,
    published_at_ms INTEGER NOT NULL, schema INTEGER NOT NULL
) STRICT;
CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), nonce TEXT NOT NULL, name TEXT NOT NULL) STRICT;
"""
_CONSUMERS_SQL: Final = """
CREATE TABLE consumers (
    name TEXT PRIMARY KEY, pid INTEGER NOT NULL, started TEXT NOT NULL, heartbeat_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE absent (name TEXT NOT NULL, partition INTEGER NOT NULL, PRIMARY KEY (name, partition)) STRICT;
CREATE TABLE acknowledged (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL) STRICT;
"""


READ_BYTES_MAX: Final = 64 * 1024 * 1024
"""What one read brings into memory at most, give or take a thousand messages."""

_READ: Final = """
SELECT offset, key, payload, published_at_ms, schema FROM messages WHERE offset > ? ORDER BY offset LIMIT ?
"""
_READ_RUN: Final = "SELECT offset, payload, schema FROM messages WHERE offset > ? ORDER BY offset LIMIT ?"


class Folder:
    """A data folder: made if it is missing and `make` says so, refused if it is not ours to use."""

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self.path = path.absolute()
        self.replies = self.path / "replies"
        with _os_errors(self.path):
            self._open(make=make)
        self._described: dict[Topic, dict[str, Any]] = {}

    def _open(self, *, make: bool) -> None:
        marker = self.path / _MARKER
        if not marker.exists():
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            names = [each.name for each in self.path.iterdir()] if self.path.exists() else []
            foreign = [name for name in names if name not in _OTHERS and not name.startswith(_making(marker))]
            if "log" in foreign and not marker.exists():
                raise _incomplete(marker)
            if foreign and not marker.exists():
                raise DataFolderError(
                    f"{self.path} is not empty, and not a data folder of Magnetar: it holds {min(foreign)!r}.",
                    cure=_CHOOSE_ANOTHER,
                )
            if not make and not marker.exists():
                raise DataFolderError(f"There is no data folder {self.path}.", cure=_RUN_FIRST)
            _write_atomically(marker, json.dumps({"format": FORMAT}))
        try:
            found = json.loads(marker.read_text())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataFolderError(f"{marker} cannot be read: {error}.", cure=RESTORE) from error
        if found != FORMAT:
            raise DataFolderError(
                f"The data folder {self.path} has format {found}; this Magnetar reads format {FORMAT}.",
                cure="Use the version of Magnetar that wrote it, or a later one.",
            )
        if not os.access(self.path, os.W_OK):
            raise DataFolderError(f"The data folder {self.path} is read-only.", cure="Make it writable.")
        self.replies.mkdir(mode=0o700, exist_ok=True)

    # --- topics -----------------------------------------------------------------------------------------------------

    def topic(self, topic: Topic) -> Path:
        """The folder of a topic."""
        return self.path / "log" / str(topic)

    def partition(self, topic: Topic, partition: int) -> Path:
        """The file of a partition. Raises LogUnavailable if the topic has none of that number."""
        known = self._read(topic)
        if not 0 <= partition < known["partitions"]:
            raise LogUnavailable(f"{topic} has {known['partitions']} partitions, and no partition {partition}.")
        return self.topic(topic) / f"{partition}.sqlite"

    def describe(self, topic: Topic) -> TopicDescription:
        """What the folder knows of a topic."""
        known = self._read(topic)
        return TopicDescription(known["partitions"], known["incarnation"])

    def schemas(self, topic: Topic) -> list[str]:
        """The texts of a topic's schemas; a schema's number is its place, from 1. Read anew each time."""
        self._described.pop(topic, None)
        schemas: list[str] = self._read(topic)["schemas"]
        return schemas

    def _read(self, topic: Topic) -> dict[str, Any]:
        known = self._described.get(topic)
        if known is None:
            file = self.topic(topic) / "topic.json"
            try:
                known = json.loads(file.read_text())
            except ValueError as error:
                raise DataFolderError(f"{file} cannot be read: {error}.", cure=RESTORE) from error
            except FileNotFoundError:
                if file.parent.exists():
                    raise _incomplete(file) from None
                raise LogUnavailable(
                    f"The topic {topic} does not exist in {self.path}.",
                    cure="Run the pipeline once, with `magnetar dev` or `magnetar run`.",
                ) from None
            self._described[topic] = known
        return known

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """Create a topic as a whole, or add a schema to it."""
        with _os_errors(self.path), self._locked():
            if not self.topic(topic).exists():
                for path in self.missing(topic, partitions):
                    raise _incomplete(path)
                self._create(topic, partitions)
            self._described.pop(topic, None)
            known = self._read(topic)
            self._check(topic, known, partitions)
            text = canonical(schema)
            if text not in known["schemas"]:
                check_evolution(str(topic), known["schemas"], text)
                _write_atomically(
                    self.topic(topic) / "topic.json", json.dumps({**known, "schemas": [*known["schemas"], text]})
                )
                self._described.pop(topic, None)

    def _check(self, topic: Topic, known: dict[str, Any], partitions: int) -> None:
        if known["partitions"] != partitions:
            raise SettingsError(
                f"{topic} has {known['partitions']} partitions in {self.path}, and the pipeline declares {partitions}.",
                cure="The number is fixed, because it decides where each aggregate lives: set it back.",
            )
        for path in self.missing(topic, partitions):
            raise _incomplete(path)

    def missing(self, topic: Topic, partitions: int) -> list[Path]:
        """What of a topic was there once and is not any more, the topic itself if it has events of decided commands."""
        folder = self.topic(topic)
        if not folder.exists():
            return [folder] if topic.kind is TopicKind.EVENTS and self._has_decided(topic) else []
        files = [folder / name for name in ("topic.json", "consumers.sqlite")]
        files += [folder / f"{partition}.sqlite" for partition in range(partitions)]
        return [file for file in files if not file.exists()]

    def registry(self, topic: Topic, group: str = "") -> Path:
        """Where those of a group who share out the topic's partitions among themselves are written down."""
        if not group:
            return self.topic(topic) / "consumers.sqlite"
        path = self.topic(topic) / f"consumers-{group}.sqlite"
        with _os_errors(self.path), self._locked():
            if not path.exists():
                making = path.with_suffix(".making")
                making.unlink(missing_ok=True)
                _make(making, _CONSUMERS_SQL)
                making.rename(path)
        return path

    def _has_decided(self, topic: Topic) -> bool:
        """Whether commands of the topic's aggregate were decided, whose events would be made anew otherwise."""
        decided = self.topic(Topic(topic.context, topic.aggregate, TopicKind.COMMANDS)) / "consumers.sqlite"
        if not decided.exists():
            return False
        with closing(connect(decided)) as connection:
            return bool(rows_of(connection, decided, "SELECT partition FROM acknowledged LIMIT 1"))

    def _create(self, topic: Topic, partitions: int) -> None:
        """Make the topic's folder under another name, and move it into place complete."""
        final = self.topic(topic)
        making = final.with_name(f".{final.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        first = making / "0.sqlite"
        _make(first, _PARTITION_SQL)
        for partition in range(1, partitions):
            _copy(first, making / f"{partition}.sqlite")  # SQLite would take ten times as long for each
        _make(making / "consumers.sqlite", _CONSUMERS_SQL)
        described = {"partitions": partitions, "incarnation": str(uuid.uuid4()), "schemas": []}
        _write_atomically(making / "topic.json", json.dumps(described))
        making.rename(final)
        for folder in (final, final.parent, final.parent.parent, self.path):
            _sync(folder)

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the folder against others that create topics. Raises LogUnavailable naming who holds it for too long."""
        marker, deadline = self.path / _MARKER, time.monotonic() + _PROVISION_TIMEOUT_SECONDS
        with marker.open() as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise _locked_by(_holder_of(marker, "FLOCK"), marker, "creating a topic") from None
                    time.sleep(0.01)
            yield


def is_data_folder(path: Path) -> bool:
    """Whether a data folder is there, whatever is wrong with it."""
    return (path / _MARKER).exists()


def canonical(schema: str) -> str:
    """A schema's text in one formatting, so that the same schema is known again."""
    return json.dumps(json.loads(schema))


def connect(path: Path) -> sqlite3.Connection:
    """Open a file of the log that exists. Raises DataFolderError if it does not, or is no database."""
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise failure(error, path) from error
    return connection


def _make(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(sql)
    finally:
        connection.close()


def _copy(path: Path, to: Path) -> None:
    with to.open("wb") as file:
        file.write(path.read_bytes())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def transaction(
    connection: sqlite3.Connection, path: Path, timeout_seconds: float, *, frozen_seconds: float = math.inf
) -> Generator[None]:
    """One write transaction, durable when the block is left; rolled back if it raises.

    Waits at most `timeout_seconds` for those of others, but only `frozen_seconds` for that of a stopped process.
    """
    first_seconds = min(timeout_seconds, frozen_seconds)
    try:
        _begin(connection, first_seconds)
    except sqlite3.Error as error:
        meant = failure(error, path)
        if (
            not isinstance(meant, LogUnavailable)
            or first_seconds == timeout_seconds
            or _is_stopped(meant.fields["pid"])
        ):
            raise meant from error
        try:
            _begin(connection, timeout_seconds - first_seconds)
        except sqlite3.Error as again:
            raise failure(again, path) from again
    try:
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise failure(error, path) from error
        raise


def read_messages(connection: sqlite3.Connection, path: Path, after: int, messages_max: int) -> list[Message]:
    """The messages behind an offset, in one short read."""
    make: Any = tuple.__new__  # a named tuple's own constructor takes three times as long
    messages: list[Message] = []
    size = 0
    try:
        cursor = connection.execute(_READ, (after, messages_max))
        while size < READ_BYTES_MAX and (rows := cursor.fetchmany(1000)):
            size += sum([len(row[2]) for row in rows])
            messages += [
                make(Message, (make(MessageId, (offset, 0, 0)), key, payload, at_ms, schema))
                for offset, key, payload, at_ms, schema in rows
            ]
        cursor.close()
    except sqlite3.Error as error:
        raise failure(error, path) from error
    return messages


def read_run(connection: sqlite3.Connection, path: Path, after: int, messages_max: int) -> Run | None:
    """The payloads behind an offset, as far as they have one schema, in one short read."""
    payloads: list[bytes] = []
    schema, last, left = None, after, READ_BYTES_MAX
    try:
        cursor = connection.execute(_READ_RUN, (after, messages_max))
        for offset, payload, written_with in cursor:
            if written_with != schema:
                if schema is not None:
                    break
                schema = written_with
            payloads.append(payload)
            last = offset
            left -= len(payload)
            if left <= 0:
                break
        cursor.close()
    except sqlite3.Error as error:
        raise failure(error, path) from error
    return None if schema is None else Run(payloads, schema, MessageId(last))


def polling(clock: Clock, timeout_seconds: float) -> Iterator[None]:
    """Turns to look for news, with pauses between them, until the time is over; at least one."""
    deadline = clock.monotonic() + timeout_seconds
    turn = 0
    while True:
        yield
        left = deadline - clock.monotonic()
        if left <= 0:
            return
        clock.sleep(min(left, _POLL_SECONDS[min(turn, len(_POLL_SECONDS) - 1)]))
        turn += 1


def failure(error: sqlite3.Error, path: Path) -> MagnetarError:
    """What an error of SQLite means for the log."""
    text = str(error)
    if "locked" in text or "busy" in text:
        # SQLite's lock for writing is byte 120 of the file `…-shm` (wal.c).
        return _locked_by(_holder_of(Path(f"{path}-shm"), "POSIX", "120"), path, "in the middle of a transaction")
    if "full" in text or _is_full(error, path):
        return DataFolderError(
            f"The disk of {path} is full: nothing was stored.", cure="Make room; what was acknowledged is safe."
        )
    if "readonly" in text:
        return DataFolderError(f"{path} is read-only.", cure="Make the data folder and all in it writable.")
    if not path.exists():
        return _incomplete(path)
    if "I/O" in text:
        return DataFolderError(
            f"{path} cannot be read or written: {text}.",
            cure="Look after the disk, and try again: what was acknowledged stands in the file.",
        )
    return DataFolderError(f"{path} cannot be used: {text}.", cure="Restore the data folder from a copy.")


def _incomplete(missing: Path) -> DataFolderError:
    return DataFolderError(
        f"The data folder is not complete: {missing} is missing, with what stood in it.", cure=RESTORE
    )


def _is_full(error: sqlite3.Error, path: Path) -> bool:
    """Whether an error of the disk means that there is no room on it.

    SQLite says that the disk is full where a write fails, and only "disk I/O error" where the file `…-shm` cannot grow.
    """
    if "I/O" not in str(error):
        return False
    try:
        return shutil.disk_usage(path.parent).free < _SHM_BYTES
    except OSError:
        return False


def _begin(connection: sqlite3.Connection, timeout_seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout={int(timeout_seconds * 1000)}")
    connection.execute("BEGIN IMMEDIATE")


def _is_stopped(pid: object) -> bool:
    """Whether Linux says that the process is stopped, as by SIGSTOP: then it will not let go by itself."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False


def _locked_by(pid: int | None, path: Path, doing: str) -> LogUnavailable:
    who = f"process {pid} is" if pid else "another process is"
    cure = f"If it does not go on by itself, look at it: ps {pid}; then end it: kill -9 {pid}." if pid else ""
    return LogUnavailable(f"{path} is locked: {who} {doing}.", cure=cure, pid=pid)


def _holder_of(path: Path, kind: str, first_byte: str = "0") -> int | None:
    """The process that holds a lock on a file for writing, from this byte on, as Linux lists its locks."""
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in locks:
        parts = line.split()  # 1: POSIX  ADVISORY  WRITE 7001 fe:00:10203547 120 120
        of_file = parts[-3].rsplit(":", 1)[-1] == str(inode) and parts[-2] == first_byte
        if of_file and kind in parts and "WRITE" in parts and "->" not in parts:  # an arrow is for those who wait
            return int(parts[-4])
    return None


def _making(path: Path) -> str:
    """What the names begin with under which a file is being written."""
    return f".{path.name}."


def _write_atomically(path: Path, text: str) -> None:
    making = path.with_name(f"{_making(path)}{secrets.token_hex(8)}")
    try:
        with making.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)
    except OSError:  # as of a full disk, on which nothing should be left behind
        making.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: without them, what the files hold would be lost with them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _os_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise DataFolderError(f"{path} is not a folder.", cure=_CHOOSE_ANOTHER) from error
        raise DataFolderError(
            f"The data folder {path} cannot be used: {error.strerror} ({error.filename or path}).",
            cure="Make room." if full else f"Make it writable. {_CHOOSE_ANOTHER}",
        ) from error
    except sqlite3.Error as error:
        raise failure(error, path) from error


def rows_of(connection: sqlite3.Connection, path: Path, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
    """The rows of one short read."""
    try:
        rows: Sequence[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
    except sqlite3.Error as error:
        raise failure(error, path) from error
    return rows
