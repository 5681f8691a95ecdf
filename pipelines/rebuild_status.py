"""How far the generations are, as ClickHouse tells it: to the process that has it open, and to any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from magnetar.projections.columns import quoted
from magnetar.projections.declarations import view_name
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Generations, Kind, Origin, Step, of_steps, steps_query
from magnetar.projections.progress import Ask, fingerprints, table_sizes, taken_in
from magnetar.projections.tables import MirrorTables

from .pipeline import Pipeline
from .targets import Target, projection_of, target_of, targets_of

OUTGROWN: Final = " (outgrown)"


class GenerationStatus(NamedTuple):
    """One generation of the tables of a mirror or a projection."""

    table: str
    """The aggregate whose mirror it is, or the projection."""
    generation: int
    state: str
    """`shown`, `filling`, `kept`; with ` (next)` if it is to be shown, ` (outgrown)` if the code has changed since."""
    commits: int
    of_commits: int
    """How many the one that is furthest has."""
    rows: int
    """Of a mirror, the events."""
    disk_bytes: int


def generations_of(ask: Ask, pipeline: Pipeline, name: str) -> Generations:
    """What is known of the generations of an aggregate's mirror, or of a projection's table."""
    rows = ask(steps_query(*target_of(pipeline, name).steps_key(pipeline.name)))
    return of_steps(
        Step(int(row["generation"]), Kind(row["step"]), Origin(row.get("origin", Origin.TOPICS))) for row in rows
    )


def statuses(ask: Ask, pipeline: Pipeline, names: Iterable[str]) -> list[GenerationStatus]:
    """All generations that are fed or kept."""
    picture = _Picture(table_sizes(ask, pipeline.name), taken_in(ask, pipeline.name), fingerprints(ask, pipeline.name))
    return [
        found
        for name in names
        for found in _statuses(pipeline, target_of(pipeline, name), generations_of(ask, pipeline, name), picture)
    ]


def changed(ask: Ask, pipeline: Pipeline) -> list[str]:
    """The projections whose table is shown as older code has filled it: a rebuild of them is due."""
    names = [name for name, target in targets_of(pipeline).items() if target.projection != MIRROR]
    found = statuses(ask, pipeline, names)
    return [each.table for each in found if each.state.startswith("shown") and each.state.endswith(OUTGROWN)]


class _Picture(NamedTuple):
    """What ClickHouse says of all tables."""

    sizes: Mapping[str, tuple[int, int]]
    taken_in: Mapping[tuple[str, str, int], int]
    fingerprints: Mapping[str, str]


def _statuses(pipeline: Pipeline, target: Target, known: Generations, picture: _Picture) -> list[GenerationStatus]:
    def commits(generation: int) -> int:
        return sum(picture.taken_in.get(table, 0) for table in target.tables(generation))

    def state(generation: int) -> str:
        is_shown, is_filling = generation == known.shown, generation == known.filling
        return (
            ("shown" if is_shown else "filling" if is_filling else "kept")
            + (" (next)" if generation == known.wanted and not is_filling else "")
            + (OUTGROWN if is_outgrown(pipeline, target, generation, picture.fingerprints) else "")
        )

    def size(generation: int) -> tuple[int, int]:
        found = [picture.sizes.get(table, (0, 0)) for table in table_names(pipeline, target, generation)]
        return found[0][0], sum(disk_bytes for _, disk_bytes in found)

    mirrored = sum(max(_of_mirror(picture, aggregate), default=0) for aggregate in target.aggregates)
    of_commits = max(mirrored, *(commits(generation) for generation in known.fed))
    return [
        GenerationStatus(target.name, generation, state(generation), commits(generation), of_commits, *size(generation))
        for generation in known.fed
    ]


def _of_mirror(picture: _Picture, aggregate: str) -> list[int]:
    return [n for (projection, of, _), n in picture.taken_in.items() if (projection, of) == (MIRROR, aggregate)]


def table_names(pipeline: Pipeline, target: Target, generation: int) -> list[str]:
    """The tables of a generation as SQL has them, the one first whose rows are counted."""
    if target.projection != MIRROR:
        view = view_name(projection_of(pipeline, target.projection))
        return [f"{quoted(pipeline.name)}.{quoted(f'{view}__g{generation}')}"]
    schema = pipeline.schemas[target.name]
    tables = MirrorTables(schema, partitions=pipeline.partitions, generation=generation)
    return [tables.events, tables.commits]


def is_outgrown(pipeline: Pipeline, target: Target, generation: int, found: Mapping[str, str]) -> bool:
    """Whether a generation was filled by other code than this, by what `fingerprints` has found."""
    if target.projection == MIRROR:
        return False
    cls = projection_of(pipeline, target.projection)
    (table,) = table_names(pipeline, target, generation)
    ours = fingerprint_of(cls)
    return found.get(table, ours) != ours
