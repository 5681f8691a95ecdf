"""Whether everything that was asked of a pipeline is decided and settled: what must be so before its log is copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final

from magnetar.schemas import MessageId, SettingsError, TopicKind, Undecodable
from magnetar.schemas.command_message import read_envelope
from magnetar.schemas.commit import CommitCodec, read_command_id

from .clock import Clock
from .history import Codecs, cut_short, log_of
from .log import Log
from .parked import ParkedCommands
from .pipeline import Pipeline

HOLD_ON: Final = "Stop what sends commands, let the workers decide the rest, and run it again."


def draining(pipeline: Pipeline, log: Log, clock: Clock) -> Generator[tuple[str, int], None, dict[str, int]]:
    """How many commits each aggregate has. It reads all of the log, and yields how many partitions of which aggregate
    it has looked at. Raises SettingsError if a command is undecided, or a parked one open.
    """
    totals = dict.fromkeys(pipeline.aggregates, 0)
    for aggregate in totals:
        for partition in range(pipeline.partitions):
            totals[aggregate] += _decided(pipeline, log, aggregate, partition)
            yield aggregate, partition + 1
    if opened := ParkedCommands(pipeline, log, clock).open_ones():
        raise SettingsError(
            f"{len(opened)} parked commands of {pipeline.name} are open, the first at {opened[0].position}.",
            cure="Settle them with `magnetar parked`.",
        )
    return totals


def _decided(pipeline: Pipeline, log: Log, aggregate: str, partition: int) -> int:
    """How many commits a partition has; each of its commands must have one, or repeat one that has."""
    events, commands = (pipeline.topic(aggregate, kind) for kind in (TopicKind.EVENTS, TopicKind.COMMANDS))
    last, number = next(iter(deque(log_of(log, events, partition), maxlen=1)), (None, 0))
    after = None
    if last is not None:
        codecs = Codecs(log, events, CommitCodec(pipeline.schema_of(aggregate)))
        source = codecs.of(last.schema).decode(last.payload).source
        if source.incarnation == log.describe(commands).incarnation:
            after = source.id
    waiting = _commands_behind(pipeline, log, aggregate, partition, after)
    if waiting:  # repeats leave no commit of their own
        waiting -= {read_command_id(message.payload) for message, _ in log_of(log, events, partition)}
    if waiting:
        raise SettingsError(
            f"{len(waiting)} commands of {pipeline.name}/{aggregate} partition {partition} are undecided.",
            cure=HOLD_ON,
        )
    return number


def _commands_behind(pipeline: Pipeline, log: Log, aggregate: str, partition: int, after: MessageId | None) -> set[str]:
    """The ids of the commands that stand behind a place; for one that cannot be read, its place."""
    topic = pipeline.topic(aggregate, TopicKind.COMMANDS)
    end, found = log.end(topic, partition), set[str]()
    if end is None or (after is not None and end <= after):
        return found
    reader = log.reader(topic, partition, after=after)
    try:
        while messages := reader.read(messages_max=1000, timeout_seconds=5.0):
            for message in messages:
                try:
                    found.add(read_envelope(message.payload)[0].command_id)
                except (Undecodable, IndexError, UnicodeDecodeError):
                    found.add(str(tuple(message.id)))
            if messages[-1].id >= end:
                return found
    finally:
        reader.close()
    raise cut_short(topic, partition)
