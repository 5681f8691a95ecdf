"""A context's log copied into a new context with another number of partitions.

The number of partitions is fixed for a context, since an aggregate's partition follows from its id. The copy is another
context: every commit that counts goes to the partition on which its aggregate lives there, oldest first and in the
order of its old partition, under a new number. What it says besides stays, the place of its command too: ids are
decided once across the move. Commands, checkpoints and tables are not copied.

It is resumed by what stands in the new context: the order is the same in every run, so that what was written is the
beginning of what has to be. Until all is written and compared, workers refuse the new partitions.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple, Self

from magnetar.schemas import (
    OutcomeUnknown,
    PartitionRefused,
    Position,
    ReadRule,
    SettingsError,
    Topic,
    TopicKind,
    Verdict,
    partition_of,
)
from magnetar.schemas.commit import PARKED, CommitCodec, read_aggregate_id, read_command_id, read_head, read_outcome
from magnetar.schemas.ids import NIL

from .clock import Clock
from .draining import HOLD_ON, draining
from .history import COPIED, COPYING, Codecs, log_of
from .log import Appender, Entry, Log, Message
from .parked import name_of
from .pipeline import Pipeline
from .runtime import provision
from .worker import Random

FAILPOINTS: Final = ("topics_made", "partition_taken", "chunk_written", "all_written", "compared", "partition_opened")
"""Where tests kill a copy."""

CHUNK_COMMITS: Final = 1000
_TIMEOUT_SECONDS: Final = 60.0
_NOBODY: Final = bytes(16)


class CopyProgress(NamedTuple):
    """How far a copy is with one aggregate; `doing` is `looking`, `taking`, `copying`, `comparing`, or `done` (also
    in an earlier run)."""

    aggregate: str
    doing: str
    commits: int
    """Of `looking`, the partitions of the old context; of `taking`, of the new one."""
    total: int


class Moved(NamedTuple):
    """A commit on its way: the message, its partition and number in the new context, and those in the old one."""

    message: Message
    partition: int
    number: int
    old: tuple[int, int]


class Copying:
    """Copies one pipeline's log into another context of the same log."""

    def __init__(
        self,
        pipeline: Pipeline,
        log: Log,
        *,
        to: str,
        partitions: int,
        clock: Clock,
        random: Random,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        """Raises DeclarationError for a name that no context can have, SettingsError for the pipeline's own."""
        if to == pipeline.name:
            raise SettingsError(f"{to} is the context to be copied.", cure="Name a new one: it gets topics of its own.")
        self._source = pipeline
        self._target = Pipeline(to, aggregates=list(pipeline.aggregates.values()), partitions=partitions)
        self._log = log
        self._clock = clock
        self._random = random
        self._failpoint = failpoint or (lambda _: None)

    def run(self) -> Iterator[CopyProgress]:
        """Copy what is missing.

        1. Looks whether all commands are decided, and no parked one is open. 2. Makes the topics. 3. Takes all new
        partitions, compares what stands there, and appends the rest. 4. Looks whether the source is as it was, and
        compares every commit. 5. Opens the new partitions to workers.

        Killed or interrupted at any time, it goes on when it is run again; when all is done, it changes nothing. Raises
        SettingsError if the source is not at rest, PartitionRefused if something else stands in the new context, and
        OwnershipLost if somebody else takes a new partition meanwhile.
        """
        totals = yield from self._looking()
        provision(self._target, self._log)
        self._failpoint("topics_made")
        for aggregate, total in totals.items():
            copy = _AggregateCopy(self._source, self._target, aggregate, self._log)
            closed = copy.closed_partitions()
            if len(closed) == self._target.partitions:  # where one is open, all were compared
                yield from self._copy(copy, total)
            elif closed:
                yield from self._open(copy, closed)
            yield CopyProgress(aggregate, "done", total, total)

    def _looking(self) -> Generator[CopyProgress, None, dict[str, int]]:
        looking = draining(self._source, self._log, self._clock)
        while True:
            try:
                aggregate, partitions = next(looking)
            except StopIteration as end:
                totals: dict[str, int] = end.value
                return totals
            yield CopyProgress(aggregate, "looking", partitions, self._source.partitions)

    def _copy(self, copy: _AggregateCopy, total: int) -> Iterator[CopyProgress]:
        with ExitStack() as closing:
            writing = yield from self._taken(copy, range(self._target.partitions), closing)
            for done, moved in enumerate(copy.in_order(), 1):
                writing[moved.partition].write(moved)
                if done % CHUNK_COMMITS == 0:
                    yield CopyProgress(copy.aggregate, "copying", done, total)
            for each in writing:
                each.finish()
            self._failpoint("all_written")
            if (yield from self._looking())[copy.aggregate] != total:
                raise SettingsError(f"{self._source.name} has decided more commands meanwhile.", cure=HOLD_ON)
            for done in copy.compare():
                yield CopyProgress(copy.aggregate, "comparing", done, total)
            self._failpoint("compared")
            for each in writing:
                each.open()
                self._failpoint("partition_opened")

    def _open(self, copy: _AggregateCopy, partitions: Sequence[int]) -> Iterator[CopyProgress]:
        with ExitStack() as closing:
            for each in (yield from self._taken(copy, partitions, closing)):
                each.open()
                self._failpoint("partition_opened")

    def _taken(
        self, copy: _AggregateCopy, partitions: Sequence[int], closing: ExitStack
    ) -> Generator[CopyProgress, None, list[_Writing]]:
        taken = []
        for partition in partitions:
            writing = _Writing(copy, partition, self._random.randbytes(16), self._clock, self._failpoint)
            taken.append(closing.enter_context(writing))
            self._failpoint("partition_taken")
            yield CopyProgress(copy.aggregate, "taking", len(taken), len(partitions))
        return taken


class _AggregateCopy:
    """One aggregate's commits in both contexts."""

    def __init__(self, source: Pipeline, target: Pipeline, aggregate: str, log: Log) -> None:
        self.aggregate = aggregate
        self.source = source
        self.target = target
        self.log = log
        self.topic = target.topic(aggregate, TopicKind.EVENTS)
        self.codec = CommitCodec(target.schemas[aggregate])
        self._from = source.topic(aggregate, TopicKind.EVENTS)
        self._old = Codecs(log, self._from, CommitCodec(source.schemas[aggregate]))
        self._new = Codecs(log, self.topic, self.codec)
        self._names: dict[str, str] | None = None

    def in_order(self) -> Iterator[Moved]:
        """All commits that count, in the order in which they are written: the same in every run."""
        numbers = Counter[int]()
        for message, old in heapq.merge(
            *(self._stream(partition) for partition in range(self.source.partitions)),
            key=lambda each: each[0].published_at_ms,
        ):
            id = read_aggregate_id(message.payload)
            # A parked command whose id could not be read lives nowhere.
            home = partition_of(id, self.target.partitions) if id else old[0] % self.target.partitions
            numbers[home] += 1
            yield Moved(message, home, numbers[home], old)

    def _stream(self, partition: int) -> Iterator[tuple[Message, tuple[int, int]]]:
        for message, number in log_of(self.log, self._from, partition):
            yield message, (partition, number)

    def encoded(self, moved: Moved, owner: bytes = _NOBODY) -> bytes:
        """The commit as it stands in the new context."""
        commit = self._old.of(moved.message.schema).decode(moved.message.payload)
        resolves = commit.resolves and self._new_names().get(commit.resolves, commit.resolves)
        return self.codec.encode_again(commit, number=moved.number, owner=owner, resolves=resolves)

    def _new_names(self) -> dict[str, str]:
        """A parked command without an id is named by its position: its names in both contexts."""
        if self._names is None:
            self._names = {}
            for moved in self.in_order():
                if read_outcome(moved.message.payload)[0] == PARKED and read_command_id(moved.message.payload) == NIL:
                    old = Position.of(self.source.name, self.aggregate, *moved.old)
                    new = Position.of(self.target.name, self.aggregate, moved.partition, moved.number)
                    self._names[name_of(old)] = name_of(new)
        return self._names

    def check(self, partition: int, wanted: Moved | None, found: Message | None) -> None:
        """Raise PartitionRefused unless both are there and the same, or neither is."""
        if wanted is not None and found is not None:
            commit = self._new.of(found.schema).decode(found.payload)
            again = self.codec.encode_again(commit, number=commit.number, owner=_NOBODY, resolves=commit.resolves)
            if again == self.encoded(wanted):
                return
        elif wanted is None and found is None:
            return
        what = "misses" if found is None else "has more than" if wanted is None else "has something else for"
        which = f"{self.source.name}/{self.aggregate}/{wanted.old[0]}/{wanted.old[1]}" if wanted else "was copied"
        raise PartitionRefused(
            f"{self.topic} partition {partition} {what} {which}.",
            cure="Only the copy may write the new context, and nobody the old one: begin anew with another name.",
        )

    def compare(self) -> Iterator[int]:
        """Read both, and compare each commit; yields how many, by the chunk."""
        found = [log_of(self.log, self.topic, partition) for partition in range(self.target.partitions)]
        for done, moved in enumerate(self.in_order(), 1):
            message, _ = next(found[moved.partition], (None, 0))
            self.check(moved.partition, moved, message)
            if done % CHUNK_COMMITS == 0:
                yield done
        for partition, rest in enumerate(found):
            self.check(partition, None, next(rest, (None, 0))[0])

    def closed_partitions(self) -> list[int]:
        """Those that the copy has not opened to workers."""
        return [partition for partition in range(self.target.partitions) if not self._is_open(partition)]

    def _is_open(self, partition: int) -> bool:
        was_copied = False
        for message in all_of(self.log, self.topic, partition):
            if read_head(message.payload)[0] == 0:
                was_copied = COPIED in read_outcome(message.payload)[1] or was_copied
        return was_copied


def all_of(log: Log, topic: Topic, partition: int) -> Iterator[Message]:
    """All messages of a partition to where it ends now, also those that do not count."""
    end, last = log.end(topic, partition), None
    if end is None:
        return
    reader = log.reader(topic, partition, after=None)
    try:
        while last is None or last < end:
            messages = reader.read(messages_max=1000, timeout_seconds=_TIMEOUT_SECONDS)
            if not messages:
                raise OutcomeUnknown(f"{topic} partition {partition} stopped giving messages before its end.")
            yield from messages
            last = messages[-1].id
    finally:
        reader.close()


class _Writing:
    """One new partition, taken by a claim that keeps workers off."""

    def __init__(
        self, copy: _AggregateCopy, partition: int, owner: bytes, clock: Clock, failpoint: Callable[[str], None]
    ) -> None:
        self._copy = copy
        self._partition = partition
        self._owner = owner
        self._clock = clock
        self._failpoint = failpoint
        self._waiting: list[Entry] = []
        schema = copy.target.schemas[copy.aggregate].commit_json
        self._appender: Appender = copy.log.fence(copy.topic, partition, schema=schema, name=f"copy-{owner.hex()}")
        self._standing = self._before_own_claim()

    def __enter__(self) -> Self:
        self._claim(COPYING)
        return self

    def __exit__(self, *exc: object) -> None:
        self._standing.close()
        self._appender.close()

    def _claim(self, mark: str) -> None:
        metadata = {mark: self._copy.source.name}
        claim = self._copy.codec.claim(self._owner, self._clock.now_ms() * 1000, "magnetar copy", metadata)
        self._appender.append([Entry("", claim)], timeout_seconds=_TIMEOUT_SECONDS)

    def _before_own_claim(self) -> Generator[Message]:
        """What counts before the own claim: only that is the log."""
        rule, reader = ReadRule(), self._copy.log.reader(self._copy.topic, self._partition, after=None)
        try:
            while messages := reader.read(messages_max=1000, timeout_seconds=_TIMEOUT_SECONDS):
                for message in messages:
                    number, owner, _ = read_head(message.payload)
                    verdict = rule.judge(number, owner)
                    if verdict is Verdict.COUNTS:
                        yield message
                    elif verdict is Verdict.CLAIM and owner == self._owner:
                        return
        finally:
            reader.close()
        raise OutcomeUnknown(f"The claim of {self._copy.topic} partition {self._partition} did not come back.")

    def write(self, moved: Moved) -> None:
        """Compare the commit with the one that stands there, or append it. Raises PartitionRefused, OwnershipLost."""
        found = next(self._standing, None)
        if found is not None:
            self._copy.check(self._partition, moved, found)
            return
        self._waiting.append(Entry(moved.message.key, self._copy.encoded(moved, self._owner)))
        if len(self._waiting) == CHUNK_COMMITS:
            self._flush()

    def _flush(self) -> None:
        self._appender.append(self._waiting, timeout_seconds=_TIMEOUT_SECONDS)
        self._waiting = []
        self._failpoint("chunk_written")

    def finish(self) -> None:
        """Write the rest. Raises PartitionRefused if more stands there than was copied."""
        self._copy.check(self._partition, None, next(self._standing, None))
        if self._waiting:
            self._flush()

    def open(self) -> None:
        """Let workers take the partition."""
        self._claim(COPIED)
