"""What each projection of a pipeline is kept up to date by: what the view `freshness` goes by."""

from __future__ import annotations

import re

from magnetar.projections import Sql
from magnetar.projections.declarations import has_table, view_name
from magnetar.projections.freshness import MIRROR, Kept
from magnetar.projections.tables import shown_names
from magnetar.schemas import wire_name

from .pipeline import Pipeline


def kept(pipeline: Pipeline) -> list[Kept]:
    """The mirror of each aggregate; the own table of each Rows and Fold; for each plain view, what its query reads."""
    mirrors = [Kept(MIRROR, name, MIRROR, shown_names(name), pipeline.partitions) for name in pipeline.schemas]
    tables = [
        Kept(
            view_name(projection),
            aggregate,
            wire_name(projection),
            (view_name(projection),),
            pipeline.events_of(aggregate).partitions,
        )
        for projection in pipeline.projections
        if has_table(projection)
        for aggregate in pipeline.aggregates_of(projection)
    ]
    read = [
        each._replace(projection=view_name(projection))
        for projection in pipeline.projections
        if issubclass(projection, Sql) and not projection.incremental
        for each in _read_by(projection, pipeline, [*mirrors, *tables])
    ]
    return [*mirrors, *tables, *read]


def _read_by(projection: type[Sql], pipeline: Pipeline, all_of_them: list[Kept]) -> list[Kept]:
    """Those whose events or views the query names; all of them if it names something else.

    A word may stand for something else, or in a comment: then the projection counts as behind where it need not.
    """
    words = set(re.findall(r"\w+", projection.select))
    events = {name: {*schema.events} for name, schema in pipeline.schemas.items()}
    read = [e for e in all_of_them if words & {*e.views, *(events[e.aggregate] if e.kept_by == MIRROR else ())}]
    plain = {view_name(each) for each in pipeline.projections if not has_table(each)}
    others = {"commits", "rejections", *plain}
    return read if read and not words & (others - {view_name(projection)}) else all_of_them
