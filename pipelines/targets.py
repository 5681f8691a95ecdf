"""What a projector fills: the mirror of each aggregate, and the projections that are tables."""

from __future__ import annotations

from typing import Any, NamedTuple

from magnetar.projections.declarations import has_table
from magnetar.projections.freshness import MIRROR
from magnetar.projections.leased_table import Table
from magnetar.schemas import SettingsError, wire_name

from .pipeline import Pipeline


class Target(NamedTuple):
    """What has generations of its own: it is rebuilt, and its views are swapped, as a whole."""

    projection: str
    """The class's name, or `mirror`."""
    aggregates: tuple[str, ...]
    """Whose events it takes: one for a mirror."""

    @property
    def name(self) -> str:
        """What users call it: an aggregate's name means its mirror."""
        return self.tables(1)[0].target

    def tables(self, generation: int) -> list[Table]:
        """What is fed of one generation."""
        return [Table(self.projection, aggregate, generation) for aggregate in self.aggregates]

    def steps_key(self, context: str) -> tuple[str, str]:
        """Under what its steps are written down."""
        return self.projection, f"{context}/{self.aggregates[0]}" if self.projection == MIRROR else context


def target_of(pipeline: Pipeline, name: str) -> Target:
    """The one of that name. Raises SettingsError if there is none."""
    targets = targets_of(pipeline)
    if name not in targets:
        raise SettingsError(
            f"The pipeline {pipeline.name!r} has no aggregate {name!r}, and no projection with a table of that name.",
            cure=f"It has: {', '.join(targets)}.",
        )
    return targets[name]


def projection_of(pipeline: Pipeline, target: str) -> type[Any]:
    """The class of a target that is no mirror."""
    return next(each for each in pipeline.projections if wire_name(each) == target)


def targets_of(pipeline: Pipeline) -> dict[str, Target]:
    """All of a pipeline, by name."""
    targets = [Target(MIRROR, (aggregate,)) for aggregate in pipeline.aggregates]
    targets += [
        Target(wire_name(projection), pipeline.aggregates_of(projection))
        for projection in pipeline.projections
        if has_table(projection)
    ]
    return {target.name: target for target in targets}
