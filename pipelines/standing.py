"""How far each projection is, beside the log: the second table of `magnetar status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from magnetar.projections.freshness import everything
from magnetar.projections.progress import Ask
from magnetar.schemas import MagnetarError

from .status import PartitionStatus


class ProjectionStatus(msgspec.Struct, frozen=True):
    """A projection and an aggregate whose commits it takes, all partitions together."""

    projection: str
    aggregate: str
    generation: int
    """The one that its views show."""
    commits: int
    """How many it has."""
    behind: int
    """How many it lacks of those in the log."""
    age_seconds: float | None
    """Since when it has had no more, where it is furthest behind; None if it lacks nothing."""


def projections_of(
    ask: Ask, context: str, found: Sequence[PartitionStatus], others: Mapping[tuple[str, int], int]
) -> list[ProjectionStatus]:
    """Every projection, in the order of their names; none where nobody answers. `others` is how many commits there are
    of other contexts' aggregates, by partition."""
    try:
        rows = everything(ask, context)
    except MagnetarError:
        return []
    ends = {**others, **{(each.aggregate, each.partition): each.commits for each in found}}
    together: dict[tuple[str, str], ProjectionStatus] = {}
    for row in rows:
        name, number = (row["p"], row["a"]), int(row["n"])
        lacks = max(0, ends.get((row["a"], row["nth"]), 0) - number)
        before = together.get(name, ProjectionStatus(*name, row["g"], 0, 0, None))
        ages = [before.age_seconds, row["age"] if lacks else None]
        together[name] = ProjectionStatus(
            *name,
            min(before.generation, row["g"]),
            before.commits + number,
            before.behind + lacks,
            max((age for age in ages if age is not None), default=None),
        )
    return list(together.values())
