"""The history of one aggregate, folded from the log: what was asked, what became of it, and the state it made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from magnetar.schemas import (
    Position,
    SettingsError,
    TopicKind,
    Undecodable,
    partition_of,
    why_bad_aggregate_id,
    wire_name,
)
from magnetar.schemas.command_message import CommandCodec
from magnetar.schemas.commit import Commit, CommitCodec, time_of

from .history import Codecs, log_of, messages_at
from .log import Log
from .pipeline import Pipeline


class Step(NamedTuple):
    """One commit of the aggregate, and version and state of the aggregate after it."""

    position: Position
    commit: Commit
    version: int
    state: Any


def steps(pipeline: Pipeline, log: Log, aggregate: str, id: str) -> Iterator[Step]:
    """Every commit of an aggregate, in the order of the log, to where the log ends now.

    The whole of the aggregate's partition is read, and what is of other aggregates is passed over. Raises SettingsError
    for an aggregate that the pipeline has not or an id that cannot be one, and PartitionRefused for an event that this
    code lacks.
    """
    topic = pipeline.topic(aggregate, TopicKind.EVENTS)
    if (why := why_bad_aggregate_id(id)) is not None:
        raise SettingsError(f"No aggregate can have that id: {why}.", cure="Ids are 1 to 512 printable bytes of UTF-8.")
    partition = partition_of(id, pipeline.partitions)
    codecs = Codecs(log, topic, CommitCodec(pipeline.schema_of(aggregate)))
    version = 0
    state: Any = pipeline.aggregates[aggregate]()
    for message, number in log_of(log, topic, partition):
        if message.key == id:
            commit = codecs.of(message.schema).decode(message.payload)
            for event in commit.events:
                state = state.apply(event)
            version += len(commit.events)
            yield Step(Position.of(pipeline.name, aggregate, partition, number), commit, version, state)


def up_to(found: list[Step], *, version: int | None = None, at: datetime | None = None) -> list[Step]:
    """The steps up to a version, or up to the last command that is not later than a time.

    Raises SettingsError for a version that the aggregate has not reached.
    """
    if version is not None:
        reached = found[-1].version if found else 0
        if not 0 <= version <= reached:
            raise SettingsError(f"There is no version {version}: the newest is {reached}.", cure="Leave --version out.")
        found = found[: next((n for n, step in enumerate(found) if step.version > version), len(found))]
    if at is not None:
        while found and at_of(found[-1].commit) > at:
            found = found[:-1]
    return found


def at_of(commit: Commit) -> datetime:
    """The time of the commit's command."""
    return time_of(commit.at_us)


def step_fields(step: Step) -> dict[str, Any]:
    """A step for programs, without the state."""
    commit = step.commit
    return {
        "position": str(step.position),
        "number": commit.number,
        "at": at_of(commit).isoformat(),
        "command_id": commit.command_id,
        "actor": commit.actor,
        "outcome": commit.outcome,
        "version": step.version,
        "events": [fields_of(event) for event in commit.events],
        "rejection": None if commit.rejection is None else fields_of(commit.rejection),
        "parked": None if commit.parked is None else {"reason": commit.parked.reason, "detail": commit.parked.detail},
        "resolves": commit.resolves,
    }


def fields_of(message: Any) -> dict[str, Any]:
    """A message as its wire name and its fields."""
    return {"type": wire_name(type(message)), **msgspec.to_builtins(message)}


def what_became(commit: Commit) -> str:
    """What a commit holds, in one line."""
    if commit.parked is not None:
        return f"{commit.parked.reason}: {commit.parked.detail}"
    if commit.rejection is not None:
        return repr(commit.rejection)
    if commit.events:
        return ", ".join(repr(event) for event in commit.events)
    return f"dropped: {reason}" if (reason := commit.metadata.get("magnetar.drop")) is not None else ""


def commands_of(pipeline: Pipeline, log: Log, aggregate: str, found: list[Step]) -> dict[int, dict[str, Any]]:
    """By the number of its commit, the command that stands on the command topic still, and can be read."""
    topic = pipeline.topic(aggregate, TopicKind.COMMANDS)
    codecs = Codecs(log, topic, CommandCodec(pipeline.schema_of(aggregate)))
    incarnation = log.describe(topic).incarnation
    wanted = {s.commit.source.id: s.commit.number for s in found if s.commit.source.incarnation == incarnation}
    shown: dict[int, dict[str, Any]] = {}
    if not wanted:
        return shown
    partition = found[0].position.parts()[2]
    for id, message in messages_at(log, topic, partition, wanted).items():
        with suppress(Undecodable):
            if (command := codecs.of(message.schema).decode(message.payload).command) is not None:
                shown[wanted[id]] = fields_of(command)
    return shown
