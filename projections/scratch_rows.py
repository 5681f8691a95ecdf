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


def keeping(rows: ScratchRows, context: str, data: Path) -> str:
    """The statement that makes the table, as a whole and in the place of one of before, or removes it. Repeatable.

    Raises SettingsError for rows that are not where they have to be.
    """
    table = ".".join(quoted(part) for part in scratch_table(context, rows.view).split("."))
    if not rows.folder:
        return f"DROP TABLE IF EXISTS {table} SYNC"
    file = data / rows.folder / FILE
    if not _FOLDER.fullmatch(rows.folder) or not file.exists():
        raise SettingsError(
            f"There is no file {FILE} in {rows.folder!r} of the data folder.",
            cure="Repeat the command that was to fill the scratch table, with the projector's own data folder.",
        )
    structure = literal(", ".join(f"{quoted(name)} {kind}" for name, kind in rows.columns))
    source = f"file({literal(str(file))}, 'Native', {structure})" if file.stat().st_size else f"null({structure})"
    return (
        f"CREATE OR REPLACE TABLE {table} ENGINE = MergeTree ORDER BY tuple() COMMENT {literal(rows.comment)} "
        f"AS SELECT * FROM {source}"
    )


def write_rows(store: Store, shown: str, folder: Path) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Write all rows of a view to the file; returns how many, and name and type of their columns."""
    described = store.query(f"DESCRIBE TABLE {shown}")
    store.command(f"INSERT INTO FUNCTION file({literal(str(folder / FILE))}, 'Native') SELECT * FROM {shown}")
    ((count,),) = store.query(f"SELECT count() FROM {shown}")
    return count, tuple((str(row[0]), str(row[1])) for row in described)
