"""Replies between processes of one machine: a small file per client."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from magnetar.schemas import DataFolderError

from ..clock import Clock
from .sqlite_files import failure, polling

_ADDRESS: Final = re.compile(r"([0-9]{1,10})-[0-9a-f]{32}", re.ASCII)


class SqliteInbox:
    """A file in the data folder's `replies`, named by its process and 128 random bits."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        _sweep(folder)
        self.address = f"{os.getpid()}-{secrets.token_hex(16)}"
        self._clock = clock
        self._path = folder / f"{self.address}.sqlite"
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=OFF")
            self._connection.execute("CREATE TABLE replies (id INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT")
        except sqlite3.Error as error:
            raise failure(error, self._path) from error

    def receive(self, *, timeout_seconds: float) -> Sequence[bytes]:
        """Take out what is there. Raises DataFolderError or LogUnavailable if the file is gone or cannot be read."""
        if not self._path.exists():
            raise DataFolderError(
                f"The inbox {self._path}, to which answers come, is gone.",
                cure="Was the data folder removed? Put it back, or run the pipeline, and open another client.",
            )
        try:
            for _ in polling(self._clock, timeout_seconds):
                rows = self._connection.execute("SELECT id, payload FROM replies ORDER BY id LIMIT 10000").fetchall()
                if rows:
                    self._connection.execute("DELETE FROM replies WHERE id <= ?", (rows[-1][0],))
                    return [payload for _, payload in rows]
        except sqlite3.Error as error:
            raise failure(error, self._path) from error
        return []

    def close(self) -> None:
        """Remove the file."""
        self._connection.close()
        _remove(self._path)


def deliver(folder: Path, address: str, payloads: Sequence[bytes]) -> None:
    """Put replies into an inbox, if it is one: an address is anybody's text. Never raises."""
    path = folder / f"{address}.sqlite"
    if not _ADDRESS.fullmatch(address) or not path.exists():
        return
    with contextlib.suppress(sqlite3.Error):
        # Without mode=rw, an inbox that is removed in this moment would be made anew, for nobody.
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=1.0)
        try:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO replies (payload) VALUES (?)", [(payload,) for payload in payloads])
            connection.execute("COMMIT")
        finally:
            connection.close()


def _sweep(folder: Path) -> None:
    """Remove the inboxes of processes that are gone."""
    for path in folder.glob("*.sqlite"):
        found = _ADDRESS.fullmatch(path.stem)
        if found is not None:
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                _remove(path)
            except (PermissionError, OverflowError):
                continue


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            Path(f"{path}{suffix}").unlink()
