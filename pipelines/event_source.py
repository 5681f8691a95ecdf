"""Where the events of a projection come from: aggregates of its pipeline, and of the pipelines that this one reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from magnetar.schemas import DeclarationError, Topic, TopicKind, wire_name
from magnetar.schemas.aggregate_schema import AggregateSchema

if TYPE_CHECKING:
    from .pipeline import Pipeline


class EventSource(NamedTuple):
    """An aggregate whose events can be taken."""

    schema: AggregateSchema
    partitions: int

    @property
    def topic(self) -> Topic:
        """Where they are."""
        return Topic(self.schema.context, self.schema.aggregate, TopicKind.EVENTS)


def sources_of(pipeline: Pipeline) -> dict[str, EventSource]:
    """By name: `Order` is an aggregate of the pipeline itself, `flights/Flight` one of a pipeline that it reads."""
    own = {name: EventSource(schema, pipeline.partitions) for name, schema in pipeline.schemas.items()}
    others = {
        f"{other.name}/{name}": EventSource(schema, other.partitions)
        for other in pipeline.reads.values()
        for name, schema in other.schemas.items()
    }
    return {**own, **others}


def home_of(projection: type[Any], event: type[Any], sources: Mapping[str, EventSource], context: str) -> str:
    """The name of the aggregate that has the event. Raises DeclarationError if none has, or more than one."""
    homes = [name for name, source in sources.items() if event in source.schema.events.values()]
    if not homes:
        _refuse_copy(projection, event, sources)
        others = sorted({source.schema.context for source in sources.values()} - {context})
        raise DeclarationError(
            f"{projection.__qualname__} takes {event.__qualname__}, which is an event of no aggregate of {context!r}"
            + (f", nor of what it reads: {', '.join(others)}." if others else "."),
            cure="Add the aggregate to the pipeline, or the pipeline that has it to `reads`; or take the event away.",
        )
    if len(homes) > 1:
        raise DeclarationError(
            f"{projection.__qualname__} takes {event.__qualname__}, which is an event of {' and of '.join(homes)}, and "
            "it cannot be said whose is meant.",
            cure="Give each context event classes of its own.",
        )
    return homes[0]


def _refuse_copy(projection: type[Any], event: type[Any], sources: Mapping[str, EventSource]) -> None:
    """Raise DeclarationError if an aggregate has an event that is called the same: then that one is meant."""
    for source in sources.values():
        for other in source.schema.events.values():
            if wire_name(other) == wire_name(event):
                raise DeclarationError(
                    f"{projection.__qualname__} takes {event.__qualname__} of the module {event.__module__}, which is "
                    f"another class than the event of that name of {source.schema.context!r}, that of "
                    f"{other.__module__}.",
                    cure=f"Import it where {projection.__qualname__} is declared: "
                    f"`from {other.__module__} import {other.__qualname__}`.",
                )


def checked_reads(name: str, reads: Sequence[Any], kind: type[Any]) -> dict[str, Any]:
    """The pipelines that one of this name reads, by their names. Raises DeclarationError for what cannot be read."""
    found: dict[str, Any] = {}
    for other in reads:
        if not isinstance(other, kind):
            raise DeclarationError(
                f"{other!r} in what {name!r} reads is no Pipeline.", cure="List the pipelines themselves, imported."
            )
        if other.name == name:
            raise DeclarationError(
                f"The pipeline {name!r} reads one of its own name.",
                cure="Its own events it has without that: leave it out of `reads`; or rename one of the two.",
            )
        if found.setdefault(other.name, other) is not other:
            raise DeclarationError(
                f"The pipeline {name!r} reads two of the name {other.name!r}.", cure="A context has one: name that."
            )
    return found


def along(pipeline: Pipeline) -> list[Pipeline]:
    """A pipeline behind all that it reads, and that those read: what runs together in one data folder."""
    found: dict[str, Pipeline] = {}
    for other in pipeline.reads.values():
        found.update({each.name: each for each in along(other)})
    return [*(each for name, each in found.items() if name != pipeline.name), pipeline]
