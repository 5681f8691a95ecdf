"""Who may append to a partition file, and since when."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from ..log import Ownership
from .sqlite_files import connect, rows_of

_SINCE: Final = "CREATE TABLE IF NOT EXISTS owned (id INTEGER PRIMARY KEY CHECK (id = 1), since_ms INTEGER) STRICT"
"""A table of its own, made when it is needed: older files have none."""


def write_owner(connection: sqlite3.Connection, nonce: str, name: str, now_ms: int) -> None:
    """Write a new owner down, within a transaction."""
    connection.execute("INSERT OR REPLACE INTO owner (id, nonce, name) VALUES (1, ?, ?)", (nonce, name))
    connection.execute(_SINCE)
    connection.execute("INSERT OR REPLACE INTO owned (id, since_ms) VALUES (1, ?)", (now_ms,))


def last_owner(path: Path) -> Ownership | None:
    """Who was fenced in last; None if nobody was, or before it was written down when."""
    with closing(connect(path)) as connection:
        if not rows_of(connection, path, "SELECT 1 FROM sqlite_master WHERE name = 'owned'"):
            return None
        found = rows_of(connection, path, "SELECT name, since_ms FROM owner JOIN owned USING (id)")
    return Ownership(*found[0]) if found else None
