"""Building checkpoints ahead of a roll: for code whose states are of another kind than those of the code that runs."""

from __future__ import annotations

from typing import Final, NamedTuple

from magnetar.aggregates import (
    Aggregate,
    Budget,
    CheckpointUnusable,
    FoundRound,
    PartitionProcessor,
    StateCodec,
)
from magnetar.schemas import OwnershipLost, ReadRule, Topic, TopicKind
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.commit import CommitCodec
from magnetar.schemas.read_rule import Mark

from .checkpointing import Checkpoints
from .history import Codecs, Marks, batches_behind, counting
from .log import Log
from .worker import Random, new_processor

_TRIES: Final = 5
"""A worker that begins a round of its own takes the topic, once in many thousand commits."""

_GAP_SECONDS: Final = 15.0
_NEVER: Final = 1 << 62


class Built(NamedTuple):
    """What was done for one partition."""

    partition: int
    number: int
    """Of the last commit before the checkpoint."""
    read: int
    """How many commits were read for it; 0 if the newest checkpoint stands at the end of the log already."""
    states: int


class CheckpointBuilder:
    """Folds the logs of one aggregate, and writes rounds as a worker with this code would.

    It owns nothing and decides nothing: workers of any release go on meanwhile.
    """

    def __init__(
        self, log: Log, aggregate: type[Aggregate], schema: AggregateSchema, *, partitions: int, random: Random
    ) -> None:
        self._log = log
        self._schema = schema
        self._partitions = partitions
        self._random = random
        self._states = StateCodec(aggregate)
        self._events = Topic(schema.context, schema.aggregate, TopicKind.EVENTS)
        self._checkpoints = Topic(schema.context, schema.aggregate, TopicKind.CHECKPOINTS)
        commands = Topic(schema.context, schema.aggregate, TopicKind.COMMANDS)
        self._incarnation = log.describe(commands).incarnation
        self._codecs = Codecs(log, self._events, CommitCodec(schema))

    def build(self, partition: int) -> Built:
        """Write a checkpoint that stands where the partition's log ends now.

        1. Takes the newest checkpoint that this code can read, or none. 2. Reads the log behind it. 3. Writes a whole
        round. Raises PartitionRefused if this code cannot fold what stands there.
        """
        checkpoints = Checkpoints(
            self._log,
            self._checkpoints,
            self._events,
            partition,
            self._states.fingerprint,
            name="magnetar-checkpoint",
            commits=_NEVER,
        )
        try:
            return self._build(partition, checkpoints)
        finally:
            checkpoints.close()

    def _build(self, partition: int, checkpoints: Checkpoints) -> Built:
        for found in (*checkpoints.find(), None):
            processor = new_processor(
                self._log,
                self._states,
                self._schema,
                partition=partition,
                partitions=self._partitions,
                budget=Budget(),
            )
            try:
                return self._build_from(found, partition, checkpoints, processor)
            except CheckpointUnusable as error:
                checkpoints.rejected(found, error)
            finally:
                processor.close()
        raise AssertionError("without a checkpoint, no checkpoint is unusable")

    def _build_from(
        self, found: FoundRound | None, partition: int, checkpoints: Checkpoints, processor: PartitionProcessor
    ) -> Built:
        marks = Marks()
        if found is not None:
            beginning = checkpoints.restore(found, processor)
            marks = Marks([*beginning.marks, beginning.at])
        first = processor.next_number
        self._replay(partition, processor, marks)
        states = 0
        if processor.next_number > first:
            processor.begin(self._random.randbytes(16), self._incarnation)
            states = self._write(checkpoints, processor, marks)
        return Built(partition, processor.next_number - 1, processor.next_number - first, states)

    def _replay(self, partition: int, processor: PartitionProcessor, marks: Marks) -> None:
        """Read to where the log ends now. What counts there counts for ever: a later claim takes nothing back."""
        start = marks.last
        rule = ReadRule(start.owner, start.expected)
        behind = batches_behind(self._log, self._events, partition, start.after, timeout_seconds=_GAP_SECONDS)
        for messages in behind:
            for message, _ in counting(messages, rule):
                processor.replay(self._codecs.of(message.schema).decode_effect(message.payload))
            processor.settle()
            marks.add(Mark(messages[-1].id, rule.owner, rule.expected))

    def _write(self, checkpoints: Checkpoints, processor: PartitionProcessor, marks: Marks) -> int:
        for left in reversed(range(_TRIES)):
            try:
                return checkpoints.write_whole(processor, marks)
            except OwnershipLost:
                checkpoints.close()
                if not left:
                    raise
        raise AssertionError("the last try raises")
