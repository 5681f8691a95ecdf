"""Where the states of a partition go that do not fit into memory: a file of this process, gone with it."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from typing import Final

from magnetar.aggregates import StoredCell
from magnetar.schemas import DataFolderError

_TABLE: Final = "CREATE TABLE cells (id TEXT PRIMARY KEY, version INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID"


class SqliteSpill:
    """A temporary SQLite file, made when the first state is spilled. It has no name, so that a kill leaves nothing.

    The file lies in the system's folder for temporary files (`TMPDIR`). Nothing needs it after a crash: the states come
    from the checkpoint and the log.
    """

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def load(self, id: str) -> tuple[int, bytes] | None:
        """Version and state of an aggregate, as they were stored last."""
        if self._connection is None:
            return None
        found: tuple[int, bytes] | None = self._connection.execute(
            "SELECT version, state FROM cells WHERE id = ?", (id,)
        ).fetchone()
        return found

    def store(self, cells: Sequence[StoredCell]) -> None:
        """Store these. Raises DataFolderError if the disk is full."""
        if self._connection is None:
            self._connection = self._open()
        try:
            self._connection.execute("BEGIN")
            rows = ((cell.id, cell.version, cell.state) for cell in cells)
            self._connection.executemany("INSERT OR REPLACE INTO cells (id, version, state) VALUES (?, ?, ?)", rows)
            (self._count,) = self._connection.execute("SELECT count(*) FROM cells").fetchone()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise DataFolderError(
                f"The states that do not fit into memory cannot be written to {tempfile.gettempdir()}: {error}.",
                cure="Make room there, or name another folder with TMPDIR.",
            ) from error

    def behind(self, id: str, count: int) -> Sequence[StoredCell]:
        """So many cells with greater ids, in the order of their ids."""
        if self._connection is None:
            return []
        sql = "SELECT id, version, state FROM cells WHERE id > ? ORDER BY id LIMIT ?"
        return [StoredCell(*row) for row in self._connection.execute(sql, (id, count)).fetchall()]

    def close(self) -> None:
        """Throw everything away."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect("", isolation_level=None)  # no name: SQLite removes the file as soon as it is open
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(_TABLE)
        return connection
