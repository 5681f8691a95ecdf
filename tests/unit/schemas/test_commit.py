"""The framed bytes are those of `fastavro` alone, and the `avro` package reads them."""

import io
import json
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magnetar.schemas import Command, Event, MessageId, PartitionRefused, Rejection, Undecodable, uuid7
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope, UnknownCommandType, encode_ids_to_time
from magnetar.schemas.commit import ACCEPTED, CommitCodec, Effect, Parked, Source, read_command_id, write_source


class Open(Command):
    """Open an account."""

    owner: str
    limit: int | None
    since: date


class Close(Command):
    pass


class Opened(Event):
    """An account was opened."""

    owner: str
    limit: int | None
    since: date
    at: datetime
    rate: float
    flag: bool
    blob: bytes


class Closed(Event):
    pass


class TooPoor(Rejection):
    missing: int


class Denied(Rejection):
    pass


SCHEMA = AggregateSchema(
    "bank", "Account", commands=[Open, Close], events=[Opened, Closed], rejections=[TooPoor, Denied]
)
LONGS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
UUIDS = st.builds(uuid7, st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
TIMES_US = st.integers(0, 253_402_300_799_999_999)
ENVELOPES = st.builds(
    CommandEnvelope,
    aggregate_id=TEXT,
    command_id=UUIDS,
    issued_at_us=TIMES_US,
    correlation_id=st.none() | UUIDS,
    causation_id=st.none() | UUIDS,
    actor=st.none() | TEXT,
    expected_version=st.none() | LONGS,
    reply_to=st.none() | TEXT,
    metadata=st.dictionaries(TEXT, TEXT, max_size=3),
    producer=st.none() | TEXT,
    sequence=st.none() | LONGS,
)
COMMANDS = st.builds(Open, TEXT, st.none() | LONGS, st.dates()) | st.builds(Close)
EVENTS = st.builds(
    Opened,
    TEXT,
    st.none() | LONGS,
    st.dates(),
    TIMES,
    st.floats(allow_nan=False),
    st.booleans(),
    st.binary(max_size=20),
) | st.builds(Closed)
REJECTIONS = st.builds(TooPoor, LONGS) | st.builds(Denied)


def fastavro_again(schema_json: str, payload: bytes) -> tuple[Any, bytes]:
    """What `fastavro` alone reads, and what it writes of that."""
    schema = fastavro.parse_schema(json.loads(schema_json))
    read = fastavro.schemaless_reader(io.BytesIO(payload), schema, None)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, read)
    return read, stream.getvalue()


def avro_reads(schema_json: str, payload: bytes) -> Any:
    """What the `avro` package reads."""
    reader = avro.io.DatumReader(avro.schema.parse(schema_json))
    return reader.read(avro.io.BinaryDecoder(io.BytesIO(payload)))


@given(ENVELOPES, COMMANDS)
@settings(max_examples=300, deadline=None)
def test_a_command_message_is_byte_for_byte_what_fastavro_writes(envelope: CommandEnvelope, command: Command) -> None:
    codec = CommandCodec(SCHEMA)
    payload = codec.encode(envelope, command)
    read, again = fastavro_again(SCHEMA.command_json, payload)
    assert again == payload
    assert read["type"] == type(command).__name__
    assert avro_reads(SCHEMA.command_json, payload)["aggregate_id"] == envelope.aggregate_id
    message = codec.decode(payload)
    assert (message.envelope, message.command) == (envelope, command)
    assert message.ids_to_time == encode_ids_to_time(envelope)


def commit_of(number: int, envelope: CommandEnvelope, version: int, source: Source, tail: bytes) -> bytes:
    codec = CommitCodec(SCHEMA)
    ids = encode_ids_to_time(envelope)
    return codec.encode(number, b"0123456789abcdef", envelope, version, ids, write_source(source), tail)


EFFECT = Effect.__struct_fields__
SOURCES = st.builds(Source, st.builds(MessageId, LONGS, LONGS, LONGS), st.integers(0, 2**47), UUIDS)


@given(LONGS, ENVELOPES, LONGS, SOURCES, st.lists(EVENTS, max_size=3), REJECTIONS, st.binary(max_size=50), TEXT)
@settings(max_examples=300, deadline=None)
def test_a_commit_is_byte_for_byte_what_fastavro_writes(
    number: int,
    envelope: CommandEnvelope,
    version: int,
    source: Source,
    events: list[Event],
    rejection: Rejection,
    command: bytes,
    reason: str,
) -> None:
    codec = CommitCodec(SCHEMA)
    parked = Parked.of(reason, reason, command)
    for tail in (codec.accepted(events), codec.nothing(), codec.rejected(rejection), codec.parked(parked)):
        payload = commit_of(number, envelope, version, source, tail)
        read, again = fastavro_again(SCHEMA.commit_json, payload)
        assert again == payload
        assert avro_reads(SCHEMA.commit_json, payload)["number"] == number
        commit = codec.decode(payload)
        assert (commit.number, commit.version, commit.source) == (number, version, source)
        assert commit.metadata == envelope.metadata
        assert read_command_id(payload) == envelope.command_id
        assert commit.rejection in (None, rejection)
        assert commit.parked in (None, parked)
        assert commit.events == (tuple(events) if commit.outcome == ACCEPTED else ())
        assert len(read["events"]) == len(commit.events)
        effect = codec.decode_effect(payload)
        assert [getattr(effect, name) for name in EFFECT] == [getattr(commit, name) for name in EFFECT]


@given(
    LONGS,
    ENVELOPES | st.builds(CommandEnvelope, TEXT, UUIDS, TIMES_US),
    st.integers(0, 2**40),
    SOURCES,
    st.lists(EVENTS, max_size=3),
    st.none() | UUIDS,
    st.sets(st.sampled_from([Opened, Closed])),
    st.sampled_from(["accepted", "nothing", "rejected"]),
)
@settings(max_examples=300, deadline=None)
def test_the_facts_of_a_commit_are_its_events_of_the_wanted_types(
    number: int,
    envelope: CommandEnvelope,
    version: int,
    source: Source,
    events: list[Event],
    resolves: str | None,
    wanted: set[type[Event]],
    outcome: str,
) -> None:
    codec = CommitCodec(SCHEMA)
    tails = {
        "accepted": codec.accepted(events, resolves),
        "nothing": codec.nothing(resolves),
        "rejected": codec.rejected(Denied(), resolves),
    }
    payload = commit_of(number, envelope, version, source, tails[outcome])
    whole = codec.decode(payload)
    found = [
        (f.number, f.aggregate_id, f.version, f.at_us, f.actor, f.correlation_id, f.event)
        for f in codec.read_facts(payload, frozenset(wanted))
    ]
    head, tail = (whole.number, whole.aggregate_id), (whole.at_us, whole.actor, whole.correlation_id)
    expected = enumerate(whole.events, version + 1)
    assert found == [(*head, nth, *tail, event) for nth, event in expected if type(event) in wanted]


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_foreign_bytes_are_undecodable_and_nothing_else(junk: bytes) -> None:
    for decode in (CommandCodec(SCHEMA).decode, CommitCodec(SCHEMA).decode, CommitCodec(SCHEMA).decode_effect):
        with pytest.raises(Undecodable):
            decode(junk)


@given(ENVELOPES, COMMANDS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_command_is_refused_or_read_whole(
    envelope: CommandEnvelope, command: Command, data: st.DataObject
) -> None:
    payload = bytearray(CommandCodec(SCHEMA).encode(envelope, command))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    try:
        message = CommandCodec(SCHEMA).decode(bytes(payload))
    except Undecodable:
        return
    assert type(message.command) in (Open, Close)


def test_a_value_of_another_type_than_its_annotation_is_not_encoded() -> None:
    codec = CommandCodec(SCHEMA)
    envelope = CommandEnvelope("a", uuid7(1, 1), 0)
    wrong: Any = 3.7
    with pytest.raises(TypeError, match="int"):
        codec.encode(envelope, Open("x", wrong, date(2020, 1, 1)))


def test_a_time_without_a_zone_is_not_encoded() -> None:
    opened = Opened("x", 1, date(2020, 1, 1), datetime(2020, 1, 1), 1.0, True, b"")
    with pytest.raises(ValueError, match="without a time zone"):
        CommitCodec(SCHEMA).accepted([opened])


def test_a_time_of_another_zone_is_the_same_instant_when_read() -> None:
    from datetime import timezone

    at = datetime(2020, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    opened = Opened("x", 1, date(2020, 1, 1), at, 1.0, True, b"")
    tail = CommitCodec(SCHEMA).accepted([opened])
    source = Source(MessageId(1), 0, uuid7(1, 1))
    commit = CommitCodec(SCHEMA).decode(commit_of(1, CommandEnvelope("a", uuid7(1, 1), 0), 0, source, tail))
    assert commit.events[0].at == at


def test_a_command_type_that_is_not_declared_is_told_with_its_envelope() -> None:
    wider = AggregateSchema("bank", "Account", commands=[Open, Close, Merge], events=[Opened, Closed], rejections=[])
    envelope = CommandEnvelope("a", uuid7(1, 1), 0)
    payload = CommandCodec(wider).encode(envelope, Open("x", None, date(2020, 1, 1)))
    with pytest.raises(UnknownCommandType) as raised:
        CommandCodec(SCHEMA).decode(payload)
    assert raised.value.fields["envelope"] == envelope


class Merge(Command):
    pass


class Merged(Event):
    pass


class Forbidden(Rejection):
    pass


def commit_with(writer: AggregateSchema, tail: bytes) -> bytes:
    envelope = CommandEnvelope("a", uuid7(1, 1), 0)
    source = write_source(Source(MessageId(1), 0, uuid7(1, 1)))
    return CommitCodec(writer).encode(1, bytes(16), envelope, 0, encode_ids_to_time(envelope), source, tail)


def decode_with_writers_schema(writer: AggregateSchema, events: list[Event]) -> Effect:
    """As a whole, and as recovery reads it: both the same."""
    payload = commit_with(writer, CommitCodec(writer).accepted(events))
    reader = CommitCodec(SCHEMA).for_schema(writer.commit_json)
    effect = reader.decode_effect(payload)
    assert reader.decode(payload).events == effect.events
    return effect


def test_commits_of_an_older_schema_are_read_with_that_schema() -> None:
    older = AggregateSchema("bank", "Account", commands=[Open], events=[Closed], rejections=[])
    assert decode_with_writers_schema(older, [Closed()]).events == (Closed(),)


def test_an_event_type_that_this_code_lacks_refuses_the_partition() -> None:
    newer = AggregateSchema("bank", "Account", commands=[Open], events=[Closed, Merged], rejections=[])
    assert decode_with_writers_schema(newer, [Closed()]).events == (Closed(),)
    with pytest.raises(PartitionRefused, match="Merged"):
        decode_with_writers_schema(newer, [Merged()])


def test_a_rejection_type_that_this_code_lacks_refuses_the_partition_too() -> None:
    newer = AggregateSchema("bank", "Account", commands=[Open], events=[Closed], rejections=[Denied, Forbidden])
    payload = commit_with(newer, CommitCodec(newer).rejected(Forbidden()))
    reader = CommitCodec(SCHEMA).for_schema(newer.commit_json)
    for decode in (reader.decode, reader.decode_effect):
        with pytest.raises(PartitionRefused, match="Forbidden"):
            decode(payload)


def test_the_avro_package_takes_the_schemas_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        avro.schema.parse(SCHEMA.command_json)
        avro.schema.parse(SCHEMA.commit_json)
