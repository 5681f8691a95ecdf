"""Building checkpoints ahead of a roll: for code whose states are of another kind than those of the code that runs."""

from __future__ import annotations

from typing import Final, NamedTuple

from magnetar.aggregates import (
    Aggregate,
    Cells,
    CheckpointUnusable,
    FoundRound,
    PartitionProcessor,
    StateCodec,
)
from magnetar.aggregates.cells import STATES_MAX
from magnetar.schemas import OwnershipLost, ReadRule, Topic, TopicKind, Verdict
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.commit import CommitCodec, read_head
from magnetar.schemas.read_rule import Mark

from .checkpointing import Checkpoints
from .history import Codecs, Marks
from .log import Log
from .spill import SqliteSpill
from .worker import Random

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
        self._aggregate = aggregate
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
            processor = self._processor(partition)
            try:
                return self._build_from(found, partition, checkpoints, processor)
            except CheckpointUnusable as error:
                checkpoints.rejected(found, error)
            finally:
                processor.close()
        raise AssertionError("without a checkpoint, no checkpoint is unusable")

    def _processor(self, partition: int) -> PartitionProcessor:
        return PartitionProcessor(
            self._aggregate,
            self._schema,
            partition=partition,
            partitions=self._partitions,
            commit_bytes_max=self._log.message_bytes_max,
            cells=Cells(self._states, states_max=STATES_MAX, spill=SqliteSpill()),
        )

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
        start, end = marks.last, self._log.end(self._events, partition)
        if end is None or (start.after is not None and end <= start.after):
            return
        rule = ReadRule(start.owner, start.expected)
        reader = self._log.reader(self._events, partition, after=start.after)
        try:
            while messages := reader.read(messages_max=1000, timeout_seconds=_GAP_SECONDS):
                for message in messages:
                    number, owner, _ = read_head(message.payload)
                    if rule.judge(number, owner) is Verdict.COUNTS:
                        processor.replay(self._codecs.of(message.schema).decode_effect(message.payload))
                processor.settle()
                marks.add(Mark(messages[-1].id, rule.owner, rule.expected))
                if messages[-1].id >= end:
                    return
        finally:
            reader.close()

    def _write(self, checkpoints: Checkpoints, processor: PartitionProcessor, marks: Marks) -> int:
        for left in reversed(range(_TRIES)):
            try:
                return checkpoints.write_whole(processor, marks)
            except OwnershipLost:
                checkpoints.close()
                if not left:
                    raise
        raise AssertionError("the last try raises")
