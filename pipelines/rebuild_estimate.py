"""What a rebuild would take: of each table, the events that fill it, about how much time, about how much disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from magnetar.projections import Rows, Sql
from magnetar.projections.contracts import contract_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Origin
from magnetar.projections.incremental import plan_of
from magnetar.projections.progress import Ask, events_of
from magnetar.schemas import wire_name

from .pipeline import Pipeline
from .rebuild_status import GenerationStatus
from .targets import Target, projection_of, target_of

COMMITS_PER_SECOND: Final = 660_000
"""Read, of which nothing is taken: 1.5 µs each (docs/benchmarks.md)."""

EVENTS_PER_SECOND: Final = {
    Origin.TOPICS: {
        "mirror": 350_000,
        "Rows": 60_000,
        "Fold": 60_000,
        "Fold by key or window": 36_000,
        "incremental Sql": 160_000,
    },
    Origin.MIRROR: {
        "Rows": 53_000,
        "Fold": 50_000,
        "Fold by key or window": 30_000,
        "incremental Sql": 230_000,
    },
}
"""Taken. The mirror, Rows and a Fold from the topics: as measured on two cores with nothing else to do
(docs/benchmarks.md). The others beside those, by the processor time that each took (docs/rebuilding.md)."""

MEASURED_ON: Final = "rates that were measured on two cores, by kind of table"


class Estimate(NamedTuple):
    """Of one table that is shown."""

    table: str
    kind: str
    commits: int
    """That are read."""
    events: int
    """That it takes of them."""
    rows: int
    seconds: int
    disk_bytes: int
    """As much as it takes now."""


def estimates(
    ask: Ask, pipeline: Pipeline, found: Sequence[GenerationStatus], origin: Origin = Origin.TOPICS
) -> list[Estimate]:
    """Of those that are shown. The mirror's rows are counted for the events that each takes."""
    return [
        _estimate(ask, pipeline, target_of(pipeline, each.table), each, origin)
        for each in found
        if each.state.startswith("shown")
    ]


def _estimate(ask: Ask, pipeline: Pipeline, target: Target, status: GenerationStatus, origin: Origin) -> Estimate:
    kind, types = _kind_of(pipeline, target)
    events = sum(events_of(ask, pipeline.name, aggregate, types) for aggregate in target.aggregates)
    seconds = status.of_commits / COMMITS_PER_SECOND + events / EVENTS_PER_SECOND[origin][kind]
    return Estimate(
        status.table, kind, status.of_commits, events, status.rows, max(1, round(seconds)), status.disk_bytes
    )


def _kind_of(pipeline: Pipeline, target: Target) -> tuple[str, list[str] | None]:
    """What the table is, and the types of the events that it takes; None for all."""
    if target.projection == MIRROR:
        return "mirror", None
    projection: type[Any] = projection_of(pipeline, target.projection)
    if issubclass(projection, Sql):
        return "incremental Sql", [plan_of(projection.__name__, projection.select).event]
    contract = contract_of(projection)
    types = [wire_name(event) for event in contract.events]
    if issubclass(projection, Rows):
        return "Rows", types
    return "Fold" if contract.keyed is None else "Fold by key or window", types
