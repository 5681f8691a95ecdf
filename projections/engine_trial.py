"""What the projector needs of a ClickHouse, tried in a table of its own that is removed again."""

from __future__ import annotations

import json
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from magnetar.schemas import QueryRefused, StoreUnavailable
from magnetar.schemas.framing import write_long

from .columns import quoted, structure
from .container import container
from .leased_table import INSERT_SETTINGS
from .statement import is_answer
from .store import Store

_RECORD: Final = {"type": "record", "name": "Tried", "fields": [{"name": "n", "type": "long"}]}
_GUARD: Final = "magnetar: tried"
_WINDOW: Final = 10


class Inability(NamedTuple):
    """Something that an engine does otherwise than it must."""

    check: str
    found: str
    wanted: str
    lost: str
    """What that would cost."""


def try_engine(store: Store, *, window: int = _WINDOW) -> list[Inability]:
    """Insert a block twice, and once behind a guard that stops it, as a projector does.

    Nothing is tried where there may be no table in the database `magnetar`. Raises StoreUnavailable if a server does
    not answer. Tests narrow the `window` of remembered inserts.
    """
    if not store.query("SELECT 1 FROM system.databases WHERE name = 'magnetar'"):
        return []
    table = f"magnetar.{quoted(f'tried_{secrets.token_hex(8)}')}"
    try:
        store.command(
            f"CREATE TABLE {table} (n Int64) ENGINE = MergeTree ORDER BY n "
            f"SETTINGS non_replicated_deduplication_window = {window}"
        )
    except StoreUnavailable as error:
        _raise_if_silent(error)
        return [Inability("a table", error.what, "made", "the projector cannot make or fill its tables")]
    try:
        return _tried(store, table)
    finally:
        with suppress(StoreUnavailable):
            store.command(f"DROP TABLE IF EXISTS {table} SYNC")


def _tried(store: Store, table: str) -> list[Inability]:
    try:
        for _ in range(2):
            _insert(store, table, name="same", guard=0)
    except StoreUnavailable as error:
        _raise_if_silent(error)
        return [Inability("a block of Avro", error.what, "inserted", "no commit comes into the tables")]
    found: list[Inability] = []
    if (rows := _count(store, table)) != 1:
        what = "an insert that is repeated after a crash is in the table twice"
        found.append(Inability("a repeated insert", f"there {rows} times", "there once", what))
    try:
        _insert(store, table, name="another", guard=1)
    except StoreUnavailable as error:
        _raise_if_silent(error)
        if _GUARD not in error.what:
            found.append(Inability("a guarded insert", error.what, "stopped by its guard", _UNGUARDED))
    else:
        found.append(Inability("a guarded insert", "done", "stopped by its guard", _UNGUARDED))
    return found


_UNGUARDED: Final = "a projector that has lost its lease still writes"


def _raise_if_silent(error: StoreUnavailable) -> None:
    """What is down is no engine that cannot do it."""
    if not is_answer(error.what):
        raise error


def _insert(store: Store, table: str, *, name: str, guard: int) -> None:
    rows = container(json.dumps(_RECORD), [write_long(1)])
    with (
        tempfile.TemporaryDirectory(prefix="magnetar-") as folder,
        store.block(rows, structure(_RECORD), Path(folder) / "tried.block") as block,
    ):
        store.command(
            f"INSERT INTO {table} (n) SELECT n FROM {block.source} "
            f"WHERE throwIf((SELECT max(number) FROM numbers(1)) != {guard}, '{_GUARD}') = 0 "
            f"SETTINGS insert_deduplication_token = '{name}', {INSERT_SETTINGS}",
            block=block,
        )


def _count(store: Store, table: str) -> int:
    try:
        ((rows,),) = store.query(f"SELECT count() FROM {table}")
    except QueryRefused as error:
        raise StoreUnavailable(error.what, cure="Mend what ClickHouse says.") from error
    return int(rows)
