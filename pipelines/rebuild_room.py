"""Whether the disk has room for a rebuild, which is refused beforehand: it would fill the disk under live tables."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from magnetar.projections.progress import Ask
from magnetar.schemas import DataFolderError

from .pipeline import Pipeline
from .rebuild_status import statuses

ROOM: Final = Fraction(3, 2)
"""What is asked for, as a multiple of what the shown tables take: the new ones take as much, and while ClickHouse
merges parts, those that are merged stand beside what becomes of them."""

_FREE = (
    "SELECT toString(sum(unreserved_space)) AS free FROM system.disks WHERE name IN "
    "(SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name = 'default')"
)


def free_bytes(ask: Ask) -> int:
    """What ClickHouse may still write, to the disk of its tables."""
    return int(ask(_FREE)[0]["free"])


def check_room(ask: Ask, pipeline: Pipeline, names: Iterable[str]) -> None:
    """Look whether new generations of all these fit. Raises DataFolderError if they do not.

    What is kept for a rollback counts as free: a rebuild drops it first.
    """
    found = statuses(ask, pipeline, names)
    shown = sum(each.disk_bytes for each in found if each.state.startswith("shown"))
    kept = sum(each.disk_bytes for each in found if each.state.startswith("kept"))
    needed, free = int(shown * ROOM), free_bytes(ask) + kept
    if needed > free:
        raise DataFolderError(
            f"A rebuild would need about {_megabytes(needed)} MB on disk, and {_megabytes(free)} MB are free: "
            "nothing was begun.",
            cure="Make room, or name single aggregates or projections to rebuild them one after the other.",
            needed_bytes=needed,
            free_bytes=free,
        )


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:,.1f}"
