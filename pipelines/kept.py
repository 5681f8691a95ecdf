"""What each projection of a pipeline is kept up to date by: what the view `freshness` goes by."""

from __future__ import annotations

import re

from magnetar.projections import Sql
from magnetar.projections.declarations import view_name
from magnetar.projections.freshness import MIRROR, Kept
from magnetar.projections.tables import shown_names

from .pipeline import Pipeline


def kept(pipeline: Pipeline) -> list[Kept]:
    """The mirror of each aggregate, and for each plain view the mirrors of the aggregates that its query may read."""
    return [
        Kept(projection, aggregate, MIRROR, shown_names(aggregate))
        for projection, aggregates in _readers(pipeline).items()
        for aggregate in aggregates
    ]


def _readers(pipeline: Pipeline) -> dict[str, list[str]]:
    found = {MIRROR: list(pipeline.schemas)}
    for projection in pipeline.projections:
        if issubclass(projection, Sql):
            found[view_name(projection)] = _read_by(projection, pipeline)
    return found


def _read_by(projection: type[Sql], pipeline: Pipeline) -> list[str]:
    """The aggregates whose events the query names; all of them if it names something else.

    A word may stand for something else, or in a comment: then the projection counts as behind where it need not.
    """
    words = set(re.findall(r"\w+", projection.select))
    read = [name for name, schema in pipeline.schemas.items() if words & {*schema.events, *shown_names(name)}]
    others = {"commits", "rejections", *(view_name(each) for each in pipeline.projections if issubclass(each, Sql))}
    return read if read and not words & (others - {view_name(projection)}) else list(pipeline.schemas)
