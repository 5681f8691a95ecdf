"""What a pipeline needs of its log, planned like a diff and then done: nothing is deleted, shrunk or loosened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from magnetar.schemas import LogUnavailable, SettingsError, Topic, TopicKind
from magnetar.schemas.checkpoint_block import CHECKPOINT_JSON

if TYPE_CHECKING:
    from .log import Log
    from .pipeline import Pipeline
    from .settings import Settings


class WantedTopic(NamedTuple):
    """One topic that a pipeline needs."""

    topic: Topic
    partitions: int
    schema: str
    reader: str = ""
    """The context whose projector reads it, if it is another one's: nothing of it is made then, and the right given."""

    @property
    def awaited(self) -> str:
        """What is to be said of another context's topic that is not there."""
        context = self.topic.context
        return f"not there yet; {context} makes it, and {self.reader} waits for it. Plan again then"


class Sign(StrEnum):
    """What a step does."""

    CREATE = "+"
    CHANGE = "~"
    KEEP = "="
    """Something is stricter than we need, and stays."""
    REFUSED = "!"
    """Something that we do not do: nothing of the plan is done before it is settled."""


class Step(NamedTuple):
    """One difference between what is there and what is needed."""

    sign: Sign
    subject: str
    detail: str
    """What is done, in a line or several."""
    do: Callable[[], object] | None = None
    """How it is done; None for what is kept or refused."""

    def __str__(self) -> str:
        return f"{self.sign.value} {self.subject}: {self.detail}".replace("\n", "\n    ")

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"sign": self.sign.value, "subject": self.subject, "detail": self.detail}


Roles = Mapping[str, str]
"""The names of the `worker`, `projector` and `client` roles; those without a name get no rights from us."""

RIGHTS: Final[Mapping[TopicKind, Mapping[str, tuple[str, ...]]]] = {
    TopicKind.COMMANDS: {"worker": ("consume",), "client": ("produce",)},
    TopicKind.EVENTS: {"worker": ("consume", "produce"), "projector": ("consume",), "client": ("consume",)},
    TopicKind.CHECKPOINTS: {"worker": ("consume", "produce")},
}
"""Who may do what on which topic. A client reads the schemas of the commits that answer it."""

READERS_RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {"projector": ("consume",)}
"""Who of a context that reads another one's events may do what there."""


@runtime_checkable
class Planned(Protocol):
    """A log that is planned."""

    def plan(self, topics: Sequence[WantedTopic], roles: Roles) -> list[Step]:
        """The steps from what is there to what is needed, in the order in which they are done."""
        ...


def wanted_topics(pipeline: Pipeline) -> list[WantedTopic]:
    """The topics of all aggregates of a pipeline, in the order in which they are made.

    Commands come last: as soon as they are there, a worker that waited for them may decide some.
    """
    return [
        WantedTopic(pipeline.topic(schema.aggregate, kind), pipeline.partitions, text)
        for schema in pipeline.schemas.values()
        for kind, text in (
            (TopicKind.EVENTS, schema.commit_json),
            (TopicKind.CHECKPOINTS, CHECKPOINT_JSON),
            (TopicKind.COMMANDS, schema.command_json),
        )
    ]


def read_topics(pipeline: Pipeline) -> list[WantedTopic]:
    """The event topics of other contexts from which the pipeline's projections take events."""
    from .targets import targets_of

    taken = {aggregate: None for target in targets_of(pipeline).values() for aggregate in target.aggregates}
    return [
        WantedTopic(source.topic, source.partitions, source.schema.commit_json, reader=pipeline.name)
        for source in (pipeline.events_of(aggregate) for aggregate in taken if aggregate not in pipeline.aggregates)
    ]


def check_partitions(pipeline: Pipeline, log: Log) -> None:
    """Raise SettingsError if a topic has another number of partitions than the pipeline declares.

    With another number an aggregate would be sent to, and looked for, where it does not live.
    """
    for topic, partitions, *_ in wanted_topics(pipeline):
        with suppress(LogUnavailable):
            found = log.describe(topic).partitions
            if found != partitions:
                raise SettingsError(
                    f"{topic} has {found} partitions, and the pipeline declares {partitions}.",
                    cure="The number is fixed, because it decides where each aggregate lives: set it back.",
                )


def roles_of(settings: Settings) -> Roles:
    """The roles that the settings name."""
    return {"worker": settings.worker_role, "projector": settings.projector_role, "client": settings.client_role}


def plan(pipeline: Pipeline, log: Log, settings: Settings) -> list[Step]:
    """What would have to be done on the log for this pipeline. Reads, and changes nothing."""
    topics = [*wanted_topics(pipeline), *read_topics(pipeline)]
    return log.plan(topics, roles_of(settings)) if isinstance(log, Planned) else []


def apply(steps: Sequence[Step], *, done: Callable[[Step], object] = lambda _: None) -> None:
    """Do what was planned, in its order; after a failure, plan again: what was done is not planned twice.

    Raises SettingsError, before anything is done, if a step is refused.
    """
    refused = [str(step) for step in steps if step.sign is Sign.REFUSED]
    if refused:
        raise SettingsError(
            "This cannot be provisioned:\n" + "\n".join(refused), cure="Nothing was changed. Mend these first."
        )
    for step in steps:
        if step.do is not None:
            step.do()
            done(step)
