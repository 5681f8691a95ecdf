"""The message on a command topic: the envelope, and the user's command in it."""

from __future__ import annotations

import io
import json
from typing import Any, Final

import msgspec

from .aggregate_schema import AggregateSchema
from .derivation import RecordCodec
from .errors import MagnetarError, Undecodable
from .field_type import Json
from .framing import (
    NULL,
    read_bytes,
    read_long,
    read_map,
    read_optional_long,
    read_optional_string,
    write_long,
    write_map,
    write_optional_long,
    write_optional_string,
    write_string,
)
from .messages import Command
from .names import wire_name

RESERVED: Final = "magnetar."
"""What the keys of our own metadata begin with: a sender's do not."""

RESOLVES: Final = "magnetar.resolves"
"""The metadata of a retry or a drop: the id of the parked command that it settles."""

DROP: Final = "magnetar.drop"
"""The metadata of a drop: why the parked command is not going to be decided."""


class CommandEnvelope(msgspec.Struct, frozen=True, gc=False):
    """What a command message says besides the command itself. Times are microseconds since 1970."""

    aggregate_id: str
    command_id: str
    issued_at_us: int
    correlation_id: str | None = None
    causation_id: str | None = None
    actor: str | None = None
    expected_version: int | None = None
    reply_to: str | None = None
    metadata: dict[str, str] = {}
    producer: str | None = None
    sequence: int | None = None


class CommandMessage(msgspec.Struct, gc=False):
    """A decoded command message. `ids_to_time` are the bytes that its commit repeats: from `command_id` to the time.
    The `command` of a drop is None."""

    envelope: CommandEnvelope
    command: Any
    ids_to_time: bytes


class UnknownCommandType(Undecodable):
    """The envelope can be read, but the type of the command is not one that this aggregate declares.

    What to do: deploy the code that declares it, and retry the command; it is parked until then.
    """


def encode_ids_to_time(envelope: CommandEnvelope) -> bytes:
    """`command_id`, `correlation_id`, `causation_id`, `actor` and the time: the same bytes in command and commit."""
    return b"".join(
        (
            write_string(envelope.command_id),
            write_optional_string(envelope.correlation_id),
            write_optional_string(envelope.causation_id),
            write_optional_string(envelope.actor),
            write_long(envelope.issued_at_us),
        )
    )


class CommandCodec:
    """Encodes the messages of one command topic, and decodes those of the same, an older or a newer schema.

    The codec of a message is that of the schema it was written with: `for_schema` gives it.
    """

    def __init__(self, schema: AggregateSchema, *, written_with: str | None = None) -> None:
        self.schema = schema
        self._aggregate = schema.aggregate
        self._by_class: dict[type[Command], tuple[bytes, RecordCodec, bytes]] = {}
        self._by_index: list[tuple[bytes, RecordCodec, bytes] | str] = []
        envelope, written = _parts(schema.command_schema if written_with is None else _loaded(written_with))
        self._no_command = NULL * (1 + len(written))
        self._is_foreign = envelope != _parts(schema.command_schema)[0]
        for index, (name, record) in enumerate([] if self._is_foreign else written):
            if (cls := schema.commands.get(name)) is None:
                self._by_index.append(f"{name}, which {self._aggregate} does not declare")
                continue
            before, after = around(index, len(written))
            codec = RecordCodec(cls, schema.record(cls), written_with=record)
            self._by_class[cls] = before, codec, after
            self._by_index.append(f"{name}{codec.misfit}" if codec.misfit else (before, codec, after))

    def for_schema(self, written_with: str) -> CommandCodec:
        """A codec that reads what was written with another schema of the same topic."""
        return CommandCodec(self.schema, written_with=written_with)

    def encode(self, envelope: CommandEnvelope, command: Command) -> bytes:
        """The message's bytes. Raises TypeError or ValueError for a field of another type than its annotation's."""
        before, codec, after = self._by_class[type(command)]
        return b"".join((_encode_envelope(envelope), before, codec.encode(command), after))

    def encode_drop(self, envelope: CommandEnvelope) -> bytes:
        """The message of a drop: of no command type, with `RESOLVES` and `DROP` in its metadata."""
        return _encode_envelope(envelope) + self._no_command

    def declares(self, command: type[Any]) -> bool:
        """Whether the aggregate takes commands of this class."""
        return command in self._by_class

    def decode(self, payload: bytes) -> CommandMessage:
        """Read a message. Raises Undecodable, or UnknownCommandType with its `envelope` in the error's fields."""
        try:
            return self._decode(payload)
        except MagnetarError:
            raise
        except (IndexError, UnicodeDecodeError) as error:
            raise Undecodable(f"The bytes are not a command of {self._aggregate}: {error}.") from error

    def _decode(self, payload: bytes) -> CommandMessage:
        if self._is_foreign:
            raise Undecodable(f"Its schema is not one of commands of {self._aggregate}.")
        envelope, ids_to_time, at = read_envelope(payload)
        if DROP in envelope.metadata and payload[at:] == self._no_command:
            return CommandMessage(envelope, None, ids_to_time)
        index, _ = read_long(payload, at)
        if not 1 <= index <= len(self._by_index):
            raise UnknownCommandType(
                f"The command is of type number {index}, and {self._aggregate} has {len(self._by_index)}.",
                envelope=envelope,
            )
        parts = self._by_index[index - 1]
        if isinstance(parts, str):
            raise UnknownCommandType(f"The command is {parts}.", envelope=envelope)
        before, codec, after = parts
        if not payload.startswith(before, at):
            raise UnknownCommandType(
                f"Another field than {wire_name(codec.cls)} is set in a command of that type.", envelope=envelope
            )
        stream = io.BytesIO(payload)
        stream.seek(at + len(before))
        command = codec.decode(stream)
        if payload[stream.tell() :] != after:
            raise Undecodable(f"Something stands behind the {wire_name(codec.cls)} that does not belong to it.")
        return CommandMessage(envelope, command, ids_to_time)


def _loaded(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _parts(schema: Json) -> tuple[Any, list[tuple[str, Json]]]:
    """What stands around the commands in the schema of a command topic, and the name and record of each of them.
    Nothing at all for a schema that is none."""
    try:
        fields = [(field["name"], field["type"]) for field in schema["fields"]]
        at = next(i for i, (name, _) in enumerate(fields) if name == "type")
        return [(name, _bare(avro)) for name, avro in fields[: at + 1]], [
            (str(n), avro[1]) for n, avro in fields[at + 1 :]
        ]
    except (TypeError, KeyError, IndexError, StopIteration):
        return None, []


def _bare(avro: Json) -> Json:
    """What decides the bytes of a type: not the properties that another language's tools add."""
    if isinstance(avro, list):
        return [_bare(branch) for branch in avro]
    if isinstance(avro, dict):
        return [avro["type"], _bare(avro["values"])] if avro["type"] == "map" else _bare(avro["type"])
    return avro


def _encode_envelope(envelope: CommandEnvelope) -> bytes:
    return b"".join(
        (
            write_string(envelope.aggregate_id),
            encode_ids_to_time(envelope),
            write_optional_long(envelope.expected_version),
            write_optional_string(envelope.reply_to),
            write_map(envelope.metadata),
            write_optional_string(envelope.producer),
            write_optional_long(envelope.sequence),
        )
    )


def read_envelope(payload: bytes) -> tuple[CommandEnvelope, bytes, int]:
    """Read the envelope; returns it, its bytes from `command_id` to the time, and the offset of the command's type."""
    aggregate_id, start = read_bytes(payload, 0)
    command_id, at = read_bytes(payload, start)
    correlation_id, at = read_optional_string(payload, at)
    causation_id, at = read_optional_string(payload, at)
    actor, at = read_optional_string(payload, at)
    issued_at_us, end = read_long(payload, at)
    expected_version, at = read_optional_long(payload, end)
    reply_to, at = read_optional_string(payload, at)
    metadata, at = read_map(payload, at)
    producer, at = read_optional_string(payload, at)
    sequence, at = read_optional_long(payload, at)
    envelope = CommandEnvelope(
        aggregate_id.decode(),
        command_id.decode(),
        issued_at_us,
        correlation_id,
        causation_id,
        actor,
        expected_version,
        reply_to,
        metadata,
        producer,
        sequence,
    )
    return envelope, payload[start:end], at


def around(index: int, count: int) -> tuple[bytes, bytes]:
    """What stands around the one present record among `count` optional fields: the `type`, nulls, and nulls."""
    return write_long(index + 1) + NULL * index + b"\x02", NULL * (count - index - 1)
