"""How far the generations are, as ClickHouse tells it: to the process that has it open, and to any other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Generations, Kind, Step, of_steps, steps_query
from magnetar.projections.progress import Ask, table_sizes
from magnetar.projections.tables import MirrorTables

from .pipeline import Pipeline
from .targets import Target

COMMITS_PER_SECOND: Final = 30_000
"""What a rebuild is reckoned to take in: 33,000 were measured, on two cores that had four times as much to do."""


def seconds_for(commits: int) -> int:
    """About how long a rebuild of so many commits takes."""
    return max(1, round(commits / COMMITS_PER_SECOND))


class GenerationStatus(NamedTuple):
    """One generation of an aggregate's tables."""

    aggregate: str
    generation: int
    state: str
    """`shown`, `filling`, `kept`; with ` (next)` if it is to be shown."""
    commits: int
    of_commits: int
    """How many the one that is furthest has."""
    events: int
    disk_bytes: int


def generations_of(ask: Ask, pipeline: Pipeline, aggregate: str) -> Generations:
    """What is known of an aggregate's generations."""
    rows = ask(steps_query(*Target(MIRROR, (aggregate,)).steps_key(pipeline.name)))
    return of_steps(Step(int(row["generation"]), Kind(row["step"])) for row in rows)


def statuses(ask: Ask, pipeline: Pipeline, aggregates: Iterable[str]) -> list[GenerationStatus]:
    """All generations that are fed."""
    sizes = table_sizes(ask, pipeline.name)
    return [
        found
        for aggregate in aggregates
        for found in _statuses(pipeline, aggregate, generations_of(ask, pipeline, aggregate), sizes)
    ]


def _statuses(
    pipeline: Pipeline, aggregate: str, known: Generations, sizes: dict[str, tuple[int, int]]
) -> list[GenerationStatus]:
    def size(generation: int) -> tuple[int, int, int]:
        tables = MirrorTables(pipeline.schemas[aggregate], partitions=pipeline.partitions, generation=generation)
        (commits, one), (events, other) = (sizes.get(t, (0, 0)) for t in (tables.commits, tables.events))
        return commits, events, one + other

    def state(generation: int) -> str:
        is_shown, is_filling = generation == known.shown, generation == known.filling
        return ("shown" if is_shown else "filling" if is_filling else "kept") + (
            " (next)" if generation == known.wanted and not is_filling else ""
        )

    of_commits = max(size(generation)[0] for generation in known.fed)
    return [
        GenerationStatus(aggregate, generation, state(generation), commits, of_commits, events, disk_bytes)
        for generation in known.fed
        for commits, events, disk_bytes in [size(generation)]
    ]
