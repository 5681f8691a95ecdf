"""A command on its way out: what a sender leaves out is filled in, and what could not be decided is refused here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from magnetar.aggregates import Aggregate
from magnetar.schemas import (
    Command,
    MessageRefused,
    TopicKind,
    is_uuid7,
    partition_of,
    uuid7,
    why_bad_aggregate_id,
    wire_name,
)
from magnetar.schemas.command_message import RESERVED, CommandCodec, CommandEnvelope
from magnetar.schemas.commit import CommitCodec
from magnetar.schemas.ids import is_uuid

from .clock import SystemClock
from .history import Codecs
from .log import Entry, Log, Publisher
from .pipeline import Pipeline


class Outgoing(NamedTuple):
    """One command on its way, for `send_many`."""

    aggregate: type[Aggregate]
    id: str
    command: Command
    command_id: str | None = None


def new_command_id() -> str:
    """An id for a command (UUIDv7), made now: to be kept, so that the command can be repeated under it."""
    return uuid7(SystemClock().now_ms(), secrets.randbits(74))


class Details(NamedTuple):
    """What a sender may say about a command besides its content."""

    command_id: str | None = None
    actor: str | None = None
    expected_version: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: Mapping[str, str] | None = None


NO_DETAILS = Details()


def envelope_of(
    id: str, details: Details, *, now_ms: int, randomness: int, reply_to: str | None = None
) -> CommandEnvelope:
    """Fill in what is left out; `randomness` (74 bits) is for the command's id.

    Raises MessageRefused naming what cannot be, before a worker would have to park it.
    """
    if (why := _why_not(id, details)) is not None:
        what, cure = why
        raise MessageRefused(f"The command was not sent: {what}.", cure=cure)
    command_id = details.command_id or uuid7(now_ms, randomness)
    return CommandEnvelope(
        id,
        command_id,
        now_ms * 1000,
        details.correlation_id or command_id,
        details.causation_id,
        details.actor,
        details.expected_version,
        reply_to,
        dict(details.metadata or {}),
    )


def _why_not(id: str, details: Details) -> tuple[str, str] | None:
    if not isinstance(id, str):
        return f"the aggregate's id is {id!r}", "Ids are text."
    if (why := why_bad_aggregate_id(id)) is not None:
        return why, "Ids are 1 to 512 printable bytes of UTF-8."
    if details.command_id is not None and not is_uuid7(details.command_id):
        return (
            f"{details.command_id!r} is not a UUID version 7 in lower case",
            "Leave the id out, or make it with magnetar.new_command_id().",
        )
    for name in ("correlation_id", "causation_id"):
        value = getattr(details, name)
        if value is not None and not is_uuid(value):
            return f"the {name} {value!r} is not a UUID in lower case", "Take over the id of another command."
    if details.actor is not None and not isinstance(details.actor, str):
        return f"the actor is {details.actor!r}", "Say it as text."
    version = details.expected_version
    if version is not None and (type(version) is not int or version < 0):
        return f"the expected version is {version!r}", "A version is a number from 0 on: a receipt has one."
    metadata: Mapping[Any, Any] = details.metadata or {}
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            return f"the metadata {key!r}: {value!r} is not text", "Metadata are texts by text."
        if key.startswith(RESERVED):
            return f"the metadata {key!r} would be taken for Magnetar's own", f"Begin it otherwise than {RESERVED!r}."
    return None


class Route:
    """What is needed to send to one aggregate, and to read what it answers."""

    def __init__(self, log: Log, pipeline: Pipeline, aggregate: str) -> None:
        schema = pipeline.schema_of(aggregate)
        self.aggregate = aggregate
        self.context = pipeline.name
        self._partitions = pipeline.partitions
        self._bytes_max = log.message_bytes_max
        self._commands = CommandCodec(schema)
        self.commands = pipeline.topic(aggregate, TopicKind.COMMANDS)
        self.publisher: Publisher = log.publisher(self.commands, schema=schema.command_json)
        self.codecs = Codecs(log, pipeline.topic(aggregate, TopicKind.EVENTS), CommitCodec(schema))

    def partition_of(self, id: str) -> int:
        """Where the aggregate with this id lives."""
        return partition_of(id, self._partitions)

    def entry(self, envelope: CommandEnvelope, command: Any) -> Entry:
        """The message. Raises MessageRefused for a command that the aggregate has not, or that the log cannot take."""
        if not self._commands.declares(type(command)):
            raise MessageRefused(
                f"{self.aggregate} has no command {type(command).__qualname__}.",
                cure=f"Its commands are those of {self.aggregate}.execute.",
            )
        name = wire_name(type(command))
        try:
            payload = self._commands.encode(envelope, command)
        except (TypeError, ValueError, OverflowError) as error:
            raise MessageRefused(f"The {name} was not sent: {error}.", cure="Correct the field.") from error
        if len(payload) > self._bytes_max:
            raise MessageRefused(
                f"The {name} was not sent: it has {len(payload):,} bytes, and the log takes {self._bytes_max:,}.",
                cure="Keep large things elsewhere, and name them in the command.",
            )
        return Entry(envelope.aggregate_id, payload)
