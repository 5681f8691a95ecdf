"""The commit: what one command became, as one message on the event topic, stored whole or not at all."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import takewhile
from typing import Any, Final

import msgspec

from .aggregate_schema import OUTCOMES, AggregateSchema
from .command_message import CommandEnvelope, around, encode_ids_to_time
from .derivation import RecordCodec, UnknownToThisCode
from .errors import MagnetarError, PartitionRefused, Undecodable
from .field_type import UNKNOWN_SYMBOL, Json
from .framing import (
    NULL,
    read_branch,
    read_bytes,
    read_long,
    read_map,
    read_optional_long,
    read_optional_string,
    skip_long,
    skip_map,
    skip_optional_string,
    write_bytes,
    write_long,
    write_map,
    write_optional_long,
    write_optional_string,
    write_string,
)
from .ids import NIL
from .messages import Event, Meta, Rejection
from .read_rule import ReadRule
from .topics import MessageId

ACCEPTED, NOTHING, REJECTED, PARKED, CLAIM = OUTCOMES
_ACCEPTED, _NOTHING, _REJECTED, _PARKED, _CLAIM = (write_long(i) for i in range(len(OUTCOMES)))
_EVENTS_ONLY: Final = (_ACCEPTED + NULL * 3, _NOTHING + NULL * 3)
"""The usual ways from an outcome to the events: no rejection, nothing parked, nothing resolved."""
_LOW_BYTES: Final = [bytes([n << 1 | 0x80]) for n in range(64)]
"""The first byte of a number with more than six bits, by its lowest six."""

_ONE: Final = write_long(1)[0]
_UUID_LENGTH: Final = write_long(36)[0]
_UUID_BYTES: Final = 37
_TO_EVENTS: Final = re.compile(rb"\x00(?:[\x80-\xff]*[\x00-\x7f]){4}H.{36}\x00\x00\x00\x00\x00\x00", re.DOTALL)
"""The usual way from a commit's metadata to its events: none; a source, with the incarnation as 36 characters; no
producer, no sequence; accepted; no rejection, nothing parked, nothing resolved."""

PARKED_COMMAND_BYTES_MAX: Final = 64 * 1024
"""A parked commit carries the command's own bytes up to this size, and their SHA-256 beyond it."""


class Source(msgspec.Struct, frozen=True, gc=False):
    """A command's place on its topic. `incarnation` tells a topic from its predecessor of the same name."""

    id: MessageId
    published_at_ms: int
    incarnation: str


class Parked(msgspec.Struct, frozen=True, gc=False):
    """Why a command could not be decided, and its own bytes or, beyond 64 kB, their SHA-256."""

    reason: str
    detail: str
    command: bytes | None = None
    sha256: bytes | None = None

    @classmethod
    def of(cls, reason: str, detail: str, payload: bytes) -> Parked:
        """Park these bytes."""
        if len(payload) <= PARKED_COMMAND_BYTES_MAX:
            return cls(reason, detail, command=payload)
        return cls(reason, detail, sha256=sha256(payload).digest())


class Effect(msgspec.Struct, frozen=True, gc=False):
    """What recovery takes from a commit: the events, and that its command has been decided."""

    number: int
    aggregate_id: str
    version: int
    command_id: str
    source: Source
    events: tuple[Any, ...]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What a projection takes from a commit: one event. `version` is its own.

    `written_id` and `written_at` are bytes of the message: a row repeats them, and a time takes microseconds to write.
    """

    number: int
    aggregate_id: str
    version: int
    written_id: bytes
    written_at: bytes
    actor: str | None
    correlation_id: str | None
    event: Any

    @property
    def at_us(self) -> int:
        """The command's time, in microseconds since 1970."""
        return read_long(self.written_at, 0)[0]


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(at_us: int) -> datetime:
    """The time of so many microseconds since 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=at_us)


def meta_of(of: Commit | Fact) -> Meta:
    """What the domain's code is told of a command or an event besides its content."""
    return Meta(of.aggregate_id, of.version, time_of(of.at_us), of.actor, of.correlation_id)


class Commit(msgspec.Struct, frozen=True, gc=False):
    """A decoded commit. `version` is the one before the first event; times are micro- and milliseconds since 1970."""

    number: int
    owner: bytes
    aggregate_id: str
    version: int
    command_id: str
    correlation_id: str | None
    causation_id: str | None
    actor: str | None
    at_us: int
    metadata: dict[str, str]
    source: Source
    producer: str | None
    sequence: int | None
    outcome: str
    rejection: Any
    parked: Parked | None
    resolves: str | None
    events: tuple[Any, ...]


_write_time = lru_cache(maxsize=16)(write_long)
"""Many commands are published at one time, and a number of that size takes a microsecond to write."""


def write_place(id: MessageId, published_at_ms: int) -> bytes:
    """The bytes of a source up to its topic's incarnation."""
    ledger, entry, batch = id
    return write_long(ledger) + write_long(entry) + write_long(batch) + _write_time(published_at_ms)


def write_source(source: Source) -> bytes:
    """The bytes of a source."""
    return write_place(source.id, source.published_at_ms) + write_string(source.incarnation)


NO_SOURCE: Final = Source(MessageId(0, 0, 0), 0, NIL)


class CommitCodec:
    """Encodes the commits of one aggregate, and decodes those of the same or an older schema.

    The codec of a message is that of the schema it was written with: `for_schema` gives it.
    """

    def __init__(self, schema: AggregateSchema, *, written_with: str | None = None) -> None:
        self.schema = schema
        self._writer: Json = schema.commit_schema if written_with is None else json.loads(written_with)
        self._events = _Records(schema, schema.events, _records(self._writer, "events"))
        self._rejections = _Records(schema, schema.rejections, _records(self._writer, "rejection"))
        self._check_envelope()

    def for_schema(self, written_with: str) -> CommitCodec:
        """A codec that reads what was written with another schema of the same topic. Raises PartitionRefused."""
        try:
            return CommitCodec(self.schema, written_with=written_with)
        except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
            raise PartitionRefused(
                f"A schema of the commits of {self.schema.aggregate} is none: {type(error).__name__} ({error}).",
                cure="Somebody else registered it: find out who, and take the right to do so away.",
            ) from error

    def encode(
        self,
        number: int,
        owner: bytes,
        envelope: CommandEnvelope,
        version: int,
        ids_to_time: bytes,
        source: bytes,
        tail: bytes,
    ) -> bytes:
        """Join a commit from its parts, in the order of its fields.

        `ids_to_time` are the bytes that the command message has already (`CommandMessage.ids_to_time`), `source` those
        of `write_source`, `tail` all from the outcome on.
        """
        return b"".join(
            (
                write_long(number),
                owner,
                write_string(envelope.aggregate_id),
                write_long(version),
                ids_to_time,
                write_map(envelope.metadata),
                source,
                write_optional_string(envelope.producer),
                write_optional_long(envelope.sequence),
                tail,
            )
        )

    # `resolves` is the id of the parked command that the commit's own command settles.

    def accepted(self, events: Sequence[Event], resolves: str | None = None) -> bytes:
        """The tail of a commit with events. Raises TypeError or ValueError for one that does not fit its class."""
        before = _ACCEPTED + NULL * 2 + write_optional_string(resolves)
        if not events:
            return before + NULL
        return before + write_long(len(events)) + b"".join([self._events.encode(event) for event in events]) + NULL

    def nothing(self, resolves: str | None = None) -> bytes:
        """The tail of a commit of a command that changed nothing."""
        return _NOTHING + NULL * 2 + write_optional_string(resolves) + NULL

    def rejected(self, rejection: Rejection, resolves: str | None = None) -> bytes:
        """The tail of a commit with a rejection."""
        body = self._rejections.encode(rejection)
        return _REJECTED + b"\x02" + body + NULL + write_optional_string(resolves) + NULL

    def parked(self, parked: Parked, resolves: str | None = None) -> bytes:
        """The tail of a commit of a command that could not be decided."""
        return b"".join(
            (
                _PARKED,
                NULL,
                b"\x02",
                write_string(parked.reason),
                write_string(parked.detail),
                NULL if parked.command is None else b"\x02" + write_bytes(parked.command),
                NULL if parked.sha256 is None else b"\x02" + write_bytes(parked.sha256),
                write_optional_string(resolves),
                NULL,
            )
        )

    def encode_again(self, commit: Commit, *, number: int, owner: bytes, resolves: str | None) -> bytes:
        """A decoded commit with another number, owner and parked command that it resolves."""
        if commit.rejection is not None:
            tail = self.rejected(commit.rejection, resolves)
        elif commit.parked is not None:
            tail = self.parked(commit.parked, resolves)
        elif commit.outcome == NOTHING:
            tail = self.nothing(resolves)
        else:
            tail = self.accepted(commit.events, resolves)
        envelope = CommandEnvelope(
            commit.aggregate_id,
            commit.command_id,
            commit.at_us,
            commit.correlation_id,
            commit.causation_id,
            commit.actor,
            metadata=commit.metadata,
            producer=commit.producer,
            sequence=commit.sequence,
        )
        source = write_source(commit.source)
        return self.encode(number, owner, envelope, commit.version, encode_ids_to_time(envelope), source, tail)

    def claim(self, owner: bytes, at_us: int, worker: str, metadata: Mapping[str, str] | None = None) -> bytes:
        """The message that opens an ownership: number 0, the new owner, and as metadata the worker's name, and more."""
        envelope = CommandEnvelope("", NIL, at_us, metadata={"worker": worker, **(metadata or {})})
        tail = _CLAIM + NULL * 4
        return self.encode(0, owner, envelope, 0, encode_ids_to_time(envelope), write_source(NO_SOURCE), tail)

    def decode(self, payload: bytes) -> Commit:
        """Read a whole commit.

        Raises Undecodable, and PartitionRefused for an event or rejection type or field that this code does not know.
        """
        try:
            return self._decode(payload)
        except MagnetarError:
            raise
        except (IndexError, UnicodeDecodeError) as error:
            raise Undecodable(f"The bytes are not a commit of {self.schema.aggregate}: {error}.") from error

    def decode_effect(self, payload: bytes) -> Effect:
        """Read only what recovery needs, in half the time. Raises what `decode` raises."""
        try:
            return self._decode_effect(payload) or _effect(self._decode(payload))
        except MagnetarError:
            raise
        except (IndexError, UnicodeDecodeError) as error:
            raise Undecodable(f"The bytes are not a commit of {self.schema.aggregate}: {error}.") from error

    def _decode_effect(self, payload: bytes) -> Effect | None:
        """None if there is more to it than events: that is read whole, so that what is unknown is noticed."""
        number, _, at = read_head(payload)
        aggregate_id, at = read_bytes(payload, at)
        version, at = read_long(payload, at)
        command_id, at = read_bytes(payload, at)
        for _ in ("correlation_id", "causation_id", "actor"):
            at = skip_optional_string(payload, at)
        at = skip_map(payload, skip_long(payload, at))
        source, at = _read_source(payload, at)
        at = skip_optional_string(payload, at)
        _, at = read_optional_long(payload, at)
        if not payload.startswith(_EVENTS_ONLY, at):
            return None
        events, at = self._read_events(payload, at + len(_EVENTS_ONLY[0]), io.BytesIO(payload))
        if at != len(payload):
            return None
        return Effect(number, aggregate_id.decode(), version, command_id.decode(), source, events)

    def _decode(self, payload: bytes) -> Commit:
        number, owner, at = read_head(payload)
        aggregate_id, at = read_bytes(payload, at)
        version, at = read_long(payload, at)
        command_id, at = read_bytes(payload, at)
        correlation_id, at = read_optional_string(payload, at)
        causation_id, at = read_optional_string(payload, at)
        actor, at = read_optional_string(payload, at)
        at_us, at = read_long(payload, at)
        metadata, at = read_map(payload, at)
        source, at = _read_source(payload, at)
        producer, at = read_optional_string(payload, at)
        sequence, at = read_optional_long(payload, at)
        outcome, at = read_long(payload, at)
        if not 0 <= outcome < len(OUTCOMES):
            raise Undecodable(f"The outcome is number {outcome}.")
        stream = io.BytesIO(payload)
        there, at = read_branch(payload, at)
        rejection = None
        if there:
            rejection, at = self._rejections.decode(payload, at, stream)
        there, at = read_branch(payload, at)
        parked = None
        if there:
            parked, at = _read_parked(payload, at)
        resolves, at = read_optional_string(payload, at)
        events, at = self._read_events(payload, at, stream)
        if at != len(payload):
            raise Undecodable(f"{len(payload) - at} bytes stand behind the commit.")
        return Commit(
            number,
            owner,
            aggregate_id.decode(),
            version,
            command_id.decode(),
            correlation_id,
            causation_id,
            actor,
            at_us,
            metadata,
            source,
            producer,
            sequence,
            OUTCOMES[outcome],
            rejection,
            parked,
            resolves,
            events,
        )

    def read_facts(self, payload: bytes, wanted: frozenset[type[Any]]) -> list[Fact]:
        """The events of some types only: what nobody asks for is not decoded where it can be skipped as a whole.

        Raises what `decode` raises: for an event that this code does not know too, whoever wants it.
        """
        try:
            return self._read_facts(payload, wanted)
        except MagnetarError:
            raise
        except (IndexError, UnicodeDecodeError) as error:
            raise Undecodable(f"The bytes are not a commit of {self.schema.aggregate}: {error}.") from error

    def _read_facts(self, payload: bytes, wanted: frozenset[type[Any]]) -> list[Fact]:
        number, at_id = read_long(payload, 0)
        at_id += 16
        aggregate_id, at = read_bytes(payload, at_id)
        written_id = payload[at_id:at]
        version, at = read_long(payload, at)
        at = at + _UUID_BYTES if payload[at] == _UUID_LENGTH else read_bytes(payload, at)[1]
        correlation_id, at = read_optional_string(payload, at)
        at = skip_optional_string(payload, at)
        actor, at_time = read_optional_string(payload, at)
        at = skip_long(payload, at_time)
        written_at = payload[at_time:at]
        if (usual := _TO_EVENTS.match(payload, at)) is not None:
            at = usual.end()
        elif (at := self._skip_to_events(payload, at)) < 0:
            return []
        if payload[at] == _ONE and self._events.type_at(payload, at + 1) not in wanted:
            return []
        events, _ = self._read_events(payload, at, io.BytesIO(payload))
        id = aggregate_id.decode()
        return [
            Fact(number, id, version + nth, written_id, written_at, actor, correlation_id, event)
            for nth, event in enumerate(events, 1)
            if type(event) in wanted
        ]

    def _skip_to_events(self, payload: bytes, at: int) -> int:
        """The offset of the events, from that of the metadata; below 0 if the command was not accepted."""
        at = skip_map(payload, at)
        for _ in range(4):
            at = skip_long(payload, at)
        at = skip_optional_string(payload, read_bytes(payload, at)[1])
        _, at = read_optional_long(payload, at)
        if not payload.startswith(_ACCEPTED + NULL * 2, at):
            return -1
        return skip_optional_string(payload, at + len(_ACCEPTED) + 2)

    def _read_events(self, payload: bytes, at: int, stream: io.BytesIO) -> tuple[tuple[Any, ...], int]:
        events: list[Any] = []
        while True:
            count, at = read_long(payload, at)
            if count == 0:
                return tuple(events), at
            if count < 0:
                count = -count
                _, at = read_long(payload, at)
            for _ in range(count):
                event, at = self._events.decode(payload, at, stream)
                events.append(event)

    def _check_envelope(self) -> None:
        """The fields around the users' records must be those that the lines above read."""
        ours = [(f["name"], _kind(f)) for f in self.schema.commit_schema["fields"]]
        theirs = [(f["name"], _kind(f)) for f in self._writer["fields"]]
        if ours != theirs:
            raise PartitionRefused(
                f"Commits of {self.schema.aggregate} are framed in a way that this version of Magnetar does not know.",
                cure="Upgrade Magnetar.",
            )


def _effect(commit: Commit) -> Effect:
    c = commit
    return Effect(c.number, c.aggregate_id, c.version, c.command_id, c.source, c.events)


def read_head(payload: bytes) -> tuple[int, bytes, int]:
    """Number and owner, all that the read rule needs, and the offset behind them."""
    number, at = read_long(payload, 0)
    owner = payload[at : at + 16]
    if len(owner) != 16:
        raise Undecodable("The bytes are not a commit: they end within the owner.")
    return number, owner, at + 16


def head_in_log(payload: bytes, last: MessageId) -> tuple[int, bytes]:
    """Number and owner of a message on an event topic; `last` is the place of one that came with it, for people.

    Raises PartitionRefused for bytes that have none: nobody can say what was to stand there.
    """
    try:
        return read_head(payload)[:2]
    except (Undecodable, IndexError) as error:
        raise PartitionRefused(
            f"A message of {len(payload)} bytes on an event topic, {tuple(last)} or shortly before, is no commit.",
            cure="Somebody else wrote to the topic: find out who, and take the right to do so away.",
        ) from error


def counting_run(rule: ReadRule, payloads: Sequence[bytes], start: int) -> int:
    """How many payloads from `start` on count, one after the other; the rule is left behind the last of them.

    The usual case, looked at without decoding: each begins with the very bytes that the expected one must begin with.
    Where it ends, `ReadRule.judge` says why.
    """
    owner, expected, at = rule.owner, rule.expected, start
    while owner is not None and at < len(payloads):
        wanted = _heads(expected, owner)
        run = _true_at_first(map(bytes.startswith, payloads[at : at + len(wanted)], wanted))
        expected += run
        at += run
        if run < len(wanted):
            break
    rule.expected = expected
    return at - start


def _heads(number: int, owner: bytes) -> list[bytes]:
    """What the commits from this number to the next multiple of 64 begin with: only the first byte differs."""
    if number < 64:
        return [write_long(each) + owner for each in range(number, 64)]
    rest = write_long(number)[1:] + owner
    return [low + rest for low in _LOW_BYTES[number % 64 :]]


def _true_at_first(found: Iterator[bool]) -> int:
    """How many are true before the first that is not."""
    return sum(takewhile(bool, found))


def read_aggregate_id(payload: bytes) -> str:
    """The id of the aggregate that a commit is of. Raises Undecodable."""
    try:
        return read_bytes(payload, read_head(payload)[2])[0].decode()
    except (IndexError, UnicodeDecodeError) as error:
        raise Undecodable("The bytes are not a commit.") from error


def read_command_id(payload: bytes) -> str:
    """The id of the command that a commit is of. Raises Undecodable."""
    try:
        _, _, at = read_head(payload)
        _, at = read_bytes(payload, at)
        _, at = read_long(payload, at)
        return read_bytes(payload, at)[0].decode()
    except (IndexError, UnicodeDecodeError) as error:
        raise Undecodable("The bytes are not a commit.") from error


def read_time(payload: bytes) -> tuple[int, dict[str, str]]:
    """The time of a commit's command, in microseconds since 1970, and its metadata. Raises Undecodable."""
    try:
        return _read_to_metadata(payload)[:2]
    except (IndexError, UnicodeDecodeError) as error:
        raise Undecodable("The bytes are not a commit.") from error


def read_outcome(payload: bytes) -> tuple[str, dict[str, str]]:
    """A commit's outcome and its metadata, without decoding the users' records in it. Raises Undecodable."""
    try:
        _, metadata, at = _read_to_metadata(payload)
        _, at = _read_source(payload, at)
        _, at = read_optional_string(payload, at)
        _, at = read_optional_long(payload, at)
        return OUTCOMES[read_long(payload, at)[0]], metadata
    except (IndexError, UnicodeDecodeError) as error:
        raise Undecodable("The bytes are not a commit.") from error


def _read_to_metadata(payload: bytes) -> tuple[int, dict[str, str], int]:
    """The command's time, the metadata, and the offset behind them."""
    _, _, at = read_head(payload)
    _, at = read_bytes(payload, at)
    _, at = read_long(payload, at)
    _, at = read_bytes(payload, at)
    for _ in range(3):
        _, at = read_optional_string(payload, at)
    at_us, at = read_long(payload, at)
    metadata, at = read_map(payload, at)
    return at_us, metadata, at


def _read_source(payload: bytes, at: int) -> tuple[Source, int]:
    ledger, at = read_long(payload, at)
    entry, at = read_long(payload, at)
    batch, at = read_long(payload, at)
    published_at_ms, at = read_long(payload, at)
    incarnation, at = read_bytes(payload, at)
    return Source(MessageId(ledger, entry, batch), published_at_ms, incarnation.decode()), at


def _read_parked(payload: bytes, at: int) -> tuple[Parked, int]:
    reason, at = read_bytes(payload, at)
    detail, at = read_bytes(payload, at)
    command = digest = None
    there, at = read_branch(payload, at)
    if there:
        command, at = read_bytes(payload, at)
    there, at = read_branch(payload, at)
    if there:
        digest, at = read_bytes(payload, at)
    return Parked(reason.decode(), detail.decode(), command, digest), at


def _kind(field: Json) -> Any:
    """A field's type without the users' records in it."""
    if field["name"] in ("events", "rejection"):
        return field["name"]
    return field["type"]


def _records(commit_schema: Json, field_name: str) -> list[tuple[str, Json]]:
    """Name and record of each type in the field `events` or `rejection` of a commit's schema, in their order."""
    field = next(f for f in commit_schema["fields"] if f["name"] == field_name)
    record = field["type"]["items"] if field_name == "events" else field["type"][1]
    return [(f["name"], f["type"][1]) for f in record["fields"][1:]]


class _Records:
    """A record with a `type` and one optional field per type: a commit's event, or its rejection."""

    def __init__(self, schema: AggregateSchema, ours: dict[str, type[Any]], written: list[tuple[str, Json]]) -> None:
        self._aggregate = schema.aggregate
        self._names = [UNKNOWN_SYMBOL, *(str(name) for name, _ in written)]
        self._by_class: dict[type[Any], tuple[bytes, RecordCodec, bytes]] = {}
        self._by_index: list[tuple[bytes, RecordCodec, bytes] | str] = []
        for index, (name, record) in enumerate(written):
            if name not in ours:
                self._by_index.append(f"{name}, which this code lacks")
                continue
            before, after = around(index, len(written))
            codec = RecordCodec(ours[name], schema.record(ours[name]), written_with=record)
            self._by_class[ours[name]] = before, codec, after
            self._by_index.append(f"{name}{codec.misfit}" if codec.misfit else (before, codec, after))

    def type_at(self, payload: bytes, at: int) -> type[Any]:
        """The class of the record that begins here, without decoding it. Raises PartitionRefused if there is none."""
        return self._parts_at(payload, at)[1][1].cls

    def encode(self, value: Any) -> bytes:
        before, codec, after = self._by_class[type(value)]
        return before + codec.encode(value) + after

    def decode(self, payload: bytes, at: int, stream: io.BytesIO) -> tuple[Any, int]:
        index, (before, codec, after) = self._parts_at(payload, at)
        if not payload.startswith(before, at):
            raise Undecodable(f"Another field than {self._names[index]} is set in a record of that type.")
        stream.seek(at + len(before))
        try:
            value = codec.decode(stream)
        except UnknownToThisCode as error:
            raise self._refusal(index, f"{self._names[index]} with {error.fields['unknown']}") from error
        end = stream.tell()
        if not payload.startswith(after, end):
            raise Undecodable(f"Something stands behind the {self._names[index]} that does not belong to it.")
        return value, end + len(after)

    def _parts_at(self, payload: bytes, at: int) -> tuple[int, tuple[bytes, RecordCodec, bytes]]:
        index, _ = read_long(payload, at)
        if not 1 <= index <= len(self._by_index):
            raise Undecodable(f"The type of a record is number {index}.")
        parts = self._by_index[index - 1]
        if isinstance(parts, str):
            raise self._refusal(index, parts)
        return index, parts

    def _refusal(self, index: int, what: str) -> PartitionRefused:
        return PartitionRefused(
            f"A commit of {self._aggregate} carries {what}.",
            cure="Deploy the code that declares it: folding past it would decide wrongly.",
            type=self._names[index],
        )
