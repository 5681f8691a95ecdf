"""Parked commands: which are open, what they were, and the commands that settle them: a retry or a drop."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec
from magnetar.schemas import (
    Command,
    MessageId,
    MessageRefused,
    OutcomeUnknown,
    Position,
    ReadRule,
    SettingsError,
    Topic,
    TopicKind,
    Undecodable,
    partition_of,
)
from magnetar.schemas.command_message import DROP, RESOLVES, CommandCodec, CommandEnvelope
from magnetar.schemas.commit import PARKED, Commit, CommitCodec, Parked, Source, read_command_id, read_outcome
from magnetar.schemas.ids import NIL, same_settling, settling_id

from .clock import Clock
from .history import Codecs, counting, log_of, messages_at, messages_behind
from .log import Entry, Log, Message
from .pipeline import Pipeline

NOBODY: Final = "_parked"
"""The aggregate id of a drop whose parked command has none that can be read."""


class ParkedCommand(NamedTuple):
    """A parked command that nothing has settled. `id` is its command id, or stands for its position if it has none."""

    id: str
    aggregate: str
    partition: int
    position: Position
    commit: Commit
    parked: Parked


class Settling(NamedTuple):
    """A command that settles a parked one, ready to be sent."""

    parked: ParkedCommand
    partition: int
    command_id: str
    entry: Entry


def id_of(commit: Commit, position: Position) -> str:
    """What a parked commit is called by the one that settles it (docs/wire-format.md)."""
    return name_of(position) if commit.command_id == NIL else commit.command_id


def name_of(position: Position) -> str:
    """What a parked commit whose command has no id is called instead."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, position))


class ParkedCommands:
    """The parked commands of a pipeline, from its log.

    It only needs the log: no client, no ClickHouse. To find what is open, the whole log is read.
    """

    def __init__(self, pipeline: Pipeline, log: Log, clock: Clock) -> None:
        self._pipeline = pipeline
        self._log = log
        self._clock = clock
        self._open: list[ParkedCommand] = []
        self._messages: dict[tuple[str, int], dict[MessageId, Message]] = {}
        self._decided: dict[tuple[str, int], Source] = {}
        """By aggregate and partition, the last command whose commit has been read."""

    def open_ones(self) -> list[ParkedCommand]:
        """All that nothing has settled, by aggregate and partition, in the order of the log."""
        found: list[ParkedCommand] = []
        for aggregate in self._pipeline.aggregates:
            parked: list[ParkedCommand] = []
            settled: dict[str, list[tuple[int, int]]] = {}
            for partition in range(self._pipeline.partitions):
                self._read(aggregate, partition, parked, settled)
            found += [each for each in parked if not _is_settled(each, settled.get(each.id, []))]
        self._open, self._messages = found, {}
        return found

    def named(self, name: str) -> ParkedCommand:
        """The open one with this id or position. Raises SettingsError if there is none."""
        for each in reversed(self.open_ones()):
            if name in (each.id, each.position):
                return each
        raise SettingsError(
            f"No parked command {name} is open: it was settled, or never parked.",
            cure="`magnetar parked MODULE` lists what is open.",
        )

    def _read(
        self, aggregate: str, partition: int, parked: list[ParkedCommand], settled: dict[str, list[tuple[int, int]]]
    ) -> None:
        topic = self._pipeline.topic(aggregate, TopicKind.EVENTS)
        codecs = Codecs(self._log, topic, CommitCodec(self._pipeline.schema_of(aggregate)))
        last: Message | None = None
        for message, number in log_of(self._log, topic, partition):
            last = message
            outcome, metadata = read_outcome(message.payload)
            if outcome != PARKED and RESOLVES not in metadata:
                continue
            commit = codecs.of(message.schema).decode(message.payload)
            if commit.resolves is not None:
                settled.setdefault(commit.resolves, []).append((partition, number))
            if commit.parked is not None:
                position = Position.of(self._pipeline.name, aggregate, partition, number)
                id = id_of(commit, position)
                parked.append(ParkedCommand(id, aggregate, partition, position, commit, commit.parked))
        if last is not None:
            self._decided[aggregate, partition] = codecs.of(last.schema).decode(last.payload).source

    # --- what was asked ---------------------------------------------------------------------------------------------

    def command_of(self, parked: ParkedCommand) -> tuple[CommandEnvelope, Command]:
        """The envelope and the command that was parked.

        It is read from the command topic, whose message says by which schema, or else from the commit, which has the
        bytes up to 64 kB. Raises Undecodable for bytes that this code cannot read, and MessageRefused if they are in
        neither place any more.
        """
        message = self._message_of(parked)
        payload = parked.parked.command if message is None else message.payload
        if payload is None:
            raise MessageRefused(
                f"The command parked at {parked.position} does not stand on its topic any more.", cure="Drop it."
            )
        codec = CommandCodec(self._pipeline.schema_of(parked.aggregate))
        if message is not None:
            codec = Codecs(self._log, self._commands(parked.aggregate), codec).of(message.schema)
        decoded = codec.decode(payload)
        if decoded.command is None:
            raise Undecodable("It is a drop, and no command.")
        return decoded.envelope, decoded.command

    def _message_of(self, parked: ParkedCommand) -> Message | None:
        """The message on the command topic; those of all that is open on a partition are found in one go."""
        home = (parked.aggregate, parked.partition)
        if home not in self._messages:
            topic = self._commands(parked.aggregate)
            incarnation = self._log.describe(topic).incarnation
            sources = [each.commit.source for each in (*self._open, parked) if each[1:3] == home]
            ids = {source.id for source in sources if source.incarnation == incarnation}
            self._messages[home] = messages_at(self._log, topic, parked.partition, ids)
        return self._messages[home].get(parked.commit.source.id)

    def _commands(self, aggregate: str) -> Topic:
        return self._pipeline.topic(aggregate, TopicKind.COMMANDS)

    # --- settling ---------------------------------------------------------------------------------------------------

    def again(self, parked: ParkedCommand) -> Settling:
        """The command that sends a parked one once more, under an id of its own.

        Its actor, time and metadata stay. If it was parked because of its expected version, it expects none now. Raises
        MessageRefused for one that cannot be sent.
        """
        try:
            envelope, command = self.command_of(parked)
        except Undecodable as error:
            raise MessageRefused(
                f"The command parked at {parked.position} cannot be sent again: {error.what}", cure="Drop it."
            ) from error
        if parked.parked.reason == "bad_id":
            raise MessageRefused(
                f"The command parked at {parked.position} has an aggregate id that cannot be one.", cure="Drop it."
            )
        expected = None if parked.parked.reason == "version_conflict" else envelope.expected_version
        again = msgspec.structs.replace(
            self._envelope(parked, envelope.aggregate_id, envelope.metadata, envelope.actor),
            issued_at_us=envelope.issued_at_us,
            expected_version=expected,
        )
        codec = CommandCodec(self._pipeline.schema_of(parked.aggregate))
        return self._settling(parked, again, codec.encode(again, command))

    def drop(self, parked: ParkedCommand, reason: str, *, actor: str | None) -> Settling:
        """The message that says that a parked command is not going to be decided, and why."""
        envelope = self._envelope(parked, parked.commit.aggregate_id or NOBODY, {DROP: reason}, actor)
        codec = CommandCodec(self._pipeline.schema_of(parked.aggregate))
        return self._settling(parked, envelope, codec.encode_drop(envelope))

    def settle(
        self, settlings: Sequence[Settling], *, timeout_seconds: float
    ) -> Iterator[tuple[ParkedCommand, Commit]]:
        """Send them, and give the commit of each when it stands in the log.

        What is settled by a command that waits for a worker, or that somebody else sends at this moment, is settled
        once: the commit of the first is given, which need not be that of ours.

        Raises OutcomeUnknown if one is not decided in time: all have been sent, and may be decided later.
        """
        by_home: dict[tuple[str, int], list[Settling]] = {}
        for each in settlings:
            by_home.setdefault((each.parked.aggregate, each.partition), []).append(each)
        for (aggregate, partition), some in by_home.items():
            topic = self._commands(aggregate)
            publisher = self._log.publisher(topic, schema=self._pipeline.schema_of(aggregate).command_json)
            try:
                waiting = self._undecided(aggregate, partition, {same_settling(each.command_id) for each in some})
                entries = [each.entry for each in some if same_settling(each.command_id) not in waiting]
                publisher.publish(partition, entries, timeout_seconds=timeout_seconds)
            finally:
                publisher.close()
        for (aggregate, partition), some in by_home.items():
            yield from self._await(aggregate, partition, some, timeout_seconds)

    def _undecided(self, aggregate: str, partition: int, wanted: Collection[str]) -> set[str]:
        """Which of these are on the command topic already, behind the last command whose commit was read."""
        topic = self._commands(aggregate)
        codecs = Codecs(self._log, topic, CommandCodec(self._pipeline.schema_of(aggregate)))
        source = self._decided.get((aggregate, partition))
        is_of_topic = source is not None and source.incarnation == self._log.describe(topic).incarnation
        found: set[str] = set()
        for message in messages_behind(self._log, topic, partition, source.id if source and is_of_topic else None):
            with suppress(Undecodable):
                found.add(same_settling(codecs.of(message.schema).decode(message.payload).envelope.command_id))
        return found.intersection(wanted)

    def _envelope(self, parked: ParkedCommand, id: str, metadata: dict[str, str], actor: str | None) -> CommandEnvelope:
        now_ms = self._clock.now_ms()
        caused_by = None if parked.commit.command_id == NIL else parked.commit.command_id
        return CommandEnvelope(
            id,
            settling_id(parked.position, now_ms),
            now_ms * 1000,
            correlation_id=parked.commit.correlation_id or caused_by,
            causation_id=caused_by,
            actor=actor,
            metadata={**metadata, RESOLVES: parked.id},
        )

    def _settling(self, parked: ParkedCommand, envelope: CommandEnvelope, payload: bytes) -> Settling:
        partition = partition_of(envelope.aggregate_id, self._pipeline.partitions)
        return Settling(parked, partition, envelope.command_id, Entry(envelope.aggregate_id, payload))

    def _await(
        self, aggregate: str, partition: int, settlings: Sequence[Settling], timeout_seconds: float
    ) -> Iterator[tuple[ParkedCommand, Commit]]:
        """Follow the log until what these settle is settled."""
        waiting = {same_settling(each.command_id): each for each in settlings}
        topic = self._pipeline.topic(aggregate, TopicKind.EVENTS)
        codecs = Codecs(self._log, topic, CommitCodec(self._pipeline.schema_of(aggregate)))
        rule, reader = ReadRule(), self._log.reader(topic, partition, after=None)
        deadline = self._clock.monotonic() + timeout_seconds
        try:
            while waiting:
                messages = reader.read(messages_max=1000, timeout_seconds=0.2)
                for message, _ in counting(messages, rule):
                    if (settling := waiting.pop(same_settling(read_command_id(message.payload)), None)) is not None:
                        yield settling.parked, codecs.of(message.schema).decode(message.payload)
                if not messages and self._clock.monotonic() > deadline:
                    command_id = min(each.command_id for each in waiting.values())
                    raise OutcomeUnknown(
                        f"Command {command_id} was sent, and no worker has decided it within {timeout_seconds:g} s.",
                        cure="It stands on its topic, and is decided when a worker runs.",
                        command_id=command_id,
                    )
        finally:
            reader.close()


def _is_settled(parked: ParkedCommand, by: Sequence[tuple[int, int]]) -> bool:
    here = (parked.partition, parked.commit.number)
    return any(partition != here[0] or number > here[1] for partition, number in by)
