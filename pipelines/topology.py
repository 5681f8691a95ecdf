"""The wiring of a pipeline, derived from its declaration: for programs, as text, as a Mermaid diagram."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from magnetar.projections import Row
from magnetar.projections.declarations import has_table
from magnetar.projections.tables import MirrorTables
from magnetar.schemas import TopicKind
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.names import kebab

from .pipeline import Pipeline


class AggregateWiring(msgspec.Struct, frozen=True):
    """One aggregate: its messages by wire name, its topics, its tables."""

    name: str
    commands: tuple[str, ...]
    events: tuple[str, ...]
    rejections: tuple[str, ...]
    topics: dict[str, str]
    tables: dict[str, str]
    views: dict[str, str]


class ReadWiring(msgspec.Struct, frozen=True):
    """An aggregate of another context whose events projections take."""

    name: str
    """With its context."""
    topic: str
    projections: tuple[str, ...]
    """Which."""


class ProjectionWiring(msgspec.Struct, frozen=True):
    """One projection: its kind, its table or view, and its columns."""

    name: str
    kind: str
    table: str
    columns: tuple[str, ...]
    about: str


class Wiring(msgspec.Struct, frozen=True):
    """A pipeline's topics, tables and projections."""

    context: str
    partitions: int
    aggregates: tuple[AggregateWiring, ...]
    projections: tuple[ProjectionWiring, ...]
    views: tuple[str, ...]
    reads: tuple[ReadWiring, ...] = ()


def wiring_of(pipeline: Pipeline) -> Wiring:
    """Derive the wiring. Nothing is looked up: it is what the declaration says."""
    return Wiring(
        pipeline.name,
        pipeline.partitions,
        tuple(_aggregate(pipeline, schema) for schema in pipeline.schemas.values()),
        tuple(_projection(pipeline.name, projection) for projection in pipeline.projections),
        (f"{pipeline.name}.commits", f"{pipeline.name}.rejections"),
        tuple(_read(pipeline)),
    )


def _read(pipeline: Pipeline) -> Iterator[ReadWiring]:
    taken: dict[str, list[str]] = {}
    for projection in filter(has_table, pipeline.projections):
        for aggregate in pipeline.aggregates_of(projection):
            taken.setdefault(aggregate, []).append(projection.__name__)
    for aggregate, projections in taken.items():
        if aggregate not in pipeline.aggregates:
            yield ReadWiring(aggregate, str(pipeline.events_of(aggregate).topic), tuple(projections))


def _aggregate(pipeline: Pipeline, schema: AggregateSchema) -> AggregateWiring:
    tables = MirrorTables(schema, partitions=pipeline.partitions)
    return AggregateWiring(
        schema.aggregate,
        tuple(schema.commands),
        tuple(schema.events),
        tuple(schema.rejections),
        {kind.value: str(pipeline.topic(schema.aggregate, kind)) for kind in TopicKind},
        {"commits": f"{pipeline.name}.{tables.shown_commits}", "events": f"{pipeline.name}.{tables.shown_events}"},
        {event: f"{pipeline.name}.{event}" for event in schema.events},
    )


def _projection(context: str, projection: type[Row]) -> ProjectionWiring:
    kind = next((base.__name__ for base in projection.__mro__[1:] if issubclass(base, Row)), "Row")
    about = (projection.__doc__ or "").strip().partition("\n")[0]
    table = f"{context}.{kebab(projection.__name__).replace('-', '_')}"
    return ProjectionWiring(projection.__name__, kind, table, projection.__struct_encode_fields__, about)


def as_text(wiring: Wiring) -> str:
    """The wiring for people, one thing a line."""
    return "\n".join(_lines(wiring))


def _lines(wiring: Wiring) -> Iterator[str]:
    yield f"pipeline {wiring.context}: {wiring.partitions} partitions of every topic"
    for aggregate in wiring.aggregates:
        yield ""
        yield f"{aggregate.name}"
        yield f"  {aggregate.topics['commands']}"
        yield from (f"    {name}" for name in aggregate.commands)
        yield f"  {aggregate.topics['events']}"
        yield from (f"    {name}, in the view {view}" for name, view in aggregate.views.items())
        yield from (f"    {name}, a rejection" for name in aggregate.rejections)
        yield f"  {aggregate.topics['checkpoints']}"
        yield f"  mirrored into {aggregate.tables['commits']} and {aggregate.tables['events']}"
    for projection in wiring.projections:
        yield ""
        yield f"{projection.name} ({projection.kind}){': ' + projection.about if projection.about else ''}"
        yield f"  {projection.table}: {', '.join(projection.columns)}"
    for read in wiring.reads:
        yield ""
        yield f"{read.name}, of another context"
        yield f"  {read.topic}: read by {', '.join(read.projections)}"
    yield ""
    yield f"over all aggregates: {', '.join(wiring.views)}"


def as_mermaid(wiring: Wiring) -> str:
    """The wiring as a flowchart: https://mermaid.js.org."""
    return "\n".join(_mermaid(wiring))


def _mermaid(wiring: Wiring) -> Iterator[str]:
    yield "flowchart LR"
    for number, aggregate in enumerate(wiring.aggregates):
        commands, brain, events, mirror = (f"{kind}{number}" for kind in ("commands", "brain", "events", "mirror"))
        yield f'  {commands}[("{aggregate.topics["commands"]}")] -->|"{", ".join(aggregate.commands)}"| {brain}'
        yield f'  {brain}["{aggregate.name}"] -->|"{", ".join(aggregate.events)}"| {events}'
        if aggregate.rejections:
            yield f'  {brain} -.->|"{", ".join(aggregate.rejections)}"| {events}'
        yield f'  {events}[("{aggregate.topics["events"]}")] --> {mirror}'
        yield f'  {mirror}["{aggregate.tables["commits"]}<br>{aggregate.tables["events"]}"]'
        yield from (f"  {mirror} --> projection{n}" for n, _ in enumerate(wiring.projections))
    for number, projection in enumerate(wiring.projections):
        yield f'  projection{number}["{projection.name}<br>{projection.table}"]'
    numbers = {projection.name: number for number, projection in enumerate(wiring.projections)}
    for number, read in enumerate(wiring.reads):
        yield from (f'  read{number}[("{read.topic}")] --> projection{numbers[name]}' for name in read.projections)


def as_fields(wiring: Wiring) -> dict[str, Any]:
    """The wiring as plain values."""
    fields: dict[str, Any] = msgspec.to_builtins(wiring)
    return fields
