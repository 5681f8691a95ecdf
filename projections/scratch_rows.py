"""Scratch tables of a pipeline: rows that a projection has of a slice of history, beside those that are shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
from magnetar.schemas import SettingsError

from .columns import literal, quoted
from .store import Store

FILE: Final = "rows.native"
_FOLDER: Final = re.compile(r"scratch-\w+", re.ASCII)


class ScratchRows(msgspec.Struct, frozen=True):
    """The rows of a scratch table, which are in a file, or that there shall be none."""

    view: str
    """What the projection's rows are shown as."""
    folder: str = ""
    """Within the data folder, where the file is; empty for the table to be removed."""
    columns: tuple[tuple[str, str], ...] = ()
    """Name and type of each."""
    comment: str = ""


def scratch_table(context: str, view: str) -> str:
    """The scratch table's name."""
    return f"{context}.{view}__scratch"


def keep_rows(store: Store, rows: ScratchRows, context: str, data: Path) -> None:
    """Make the table, as a whole and in the place of one of before, or remove it. Repeatable.

    Raises SettingsError for rows that are not where they have to be.
    """
    table = ".".join(quoted(part) for part in scratch_table(context, rows.view).split("."))
    if not rows.folder:
        store.command(f"DROP TABLE IF EXISTS {table} SYNC")
        return
    file = data / rows.folder / FILE
    if not _FOLDER.fullmatch(rows.folder) or not file.exists():
        raise SettingsError(
            f"There is no file {FILE} in {rows.folder!r} of the data folder.",
            cure="Repeat the command that was to fill the scratch table, with the projector's own data folder.",
        )
    structure = ", ".join(f"{quoted(name)} {kind}" for name, kind in rows.columns)
    if not file.stat().st_size:
        _replace(store, table, rows, f"null({literal(structure)})")
    elif store.is_embedded:
        _replace(store, table, rows, f"file({literal(str(file))}, 'Native', {literal(structure)})")
    else:
        _send(store, table, rows, structure, file)


def _replace(store: Store, table: str, rows: ScratchRows, source: str) -> None:
    store.command(
        f"CREATE OR REPLACE TABLE {table} ENGINE = MergeTree ORDER BY tuple() COMMENT {literal(rows.comment)} "
        f"AS SELECT * FROM {source}"
    )


def _send(store: Store, table: str, rows: ScratchRows, structure: str, file: Path) -> None:
    """To a server: into a table of its own, which then becomes the scratch table."""
    sent = f"{table[:-1]}__sent{table[-1]}"
    store.command(f"CREATE OR REPLACE TABLE {sent} ({structure}) ENGINE = MergeTree ORDER BY tuple()")
    with store.block([file.read_bytes()], structure, file, fmt="Native") as block:
        store.command(f"INSERT INTO {sent} SELECT * FROM {block.source}", block=block)
    _replace(store, table, rows, sent)
    store.command(f"DROP TABLE {sent} SYNC")


def write_rows(store: Store, shown: str, folder: Path) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Write all rows of a view to the file; returns how many, and name and type of their columns."""
    described = store.query(f"DESCRIBE TABLE {shown}")
    store.command(f"INSERT INTO FUNCTION file({literal(str(folder / FILE))}, 'Native') SELECT * FROM {shown}")
    ((count,),) = store.query(f"SELECT count() FROM {shown}")
    return count, tuple((str(row[0]), str(row[1])) for row in described)
