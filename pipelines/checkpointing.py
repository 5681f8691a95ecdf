"""Checkpoints of one partition: written behind the commits, read and verified when the partition is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog
from magnetar.aggregates import CheckpointUnusable, FoundRound, PartitionProcessor, Round
from magnetar.aggregates.checkpoint import Beginning, blocks_of, find_rounds, read_beginning
from magnetar.schemas import AccessDenied, DataFolderError, MagnetarError, MessageId, ReadRule, Topic
from magnetar.schemas.checkpoint_block import CHECKPOINT_JSON
from magnetar.schemas.commit import read_head

from .history import Marks
from .log import Appender, Entry, Log

ROUNDS_KEPT: Final = 2
"""Of each fingerprint: if the newest round does not fit the log, there is one more before the log itself."""

FINGERPRINTS_KEPT: Final = 2
"""While a new release is rolled out, old and new workers write rounds side by side."""

_MARK_COMMITS: Final = 5_000
_APPEND_TIMEOUT_SECONDS: Final = 10.0
_GAP_SECONDS: Final = 15.0
"""How long a log may give nothing before its end. A busy broker that fetches an old ledger needs seconds, and whoever
takes that for the end passes a good checkpoint over and reads the whole log instead."""


class Checkpoints:
    """One partition's, in one ownership.

    A round begins when `commits` have been stored since the last one began, and is spread over as many commits again,
    or as many as there are states: so a chunk waits for a block or two at most, and recovery reads the log of the last
    two such stretches at most. Nothing that goes wrong here costs the partition: the log is the truth.
    """

    def __init__(
        self,
        log: Log,
        checkpoints: Topic,
        events: Topic,
        partition: int,
        fingerprint: bytes,
        *,
        name: str,
        commits: int,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """`beat` is called while a round is read, which takes as long as there are states."""
        self._log = log
        self._beat = beat
        self._topic = checkpoints
        self._events = events
        self._partition = partition
        self._fingerprint = fingerprint
        self._name = name
        self._commits = commits
        self._rounds: list[FoundRound] = []
        self._appender: Appender | None = None
        self._last: MessageId | None = None
        self._round: Round | None = None
        self._blocks: Iterator[tuple[int, bytes]] = iter(())
        self._done = 0
        self._begun_at = 0
        self._logger = structlog.get_logger("magnetar.checkpoints").bind(
            topic=str(checkpoints), partition=partition, worker=name
        )

    # --- recovery ---------------------------------------------------------------------------------------------------

    def find(self) -> list[FoundRound]:
        """The whole rounds that this code can read, the newest first."""
        self._rounds = find_rounds(self._messages(None))
        return [r for r in reversed(self._rounds) if r.is_whole and r.fingerprint == self._fingerprint]

    def restore(self, found: FoundRound, processor: PartitionProcessor) -> Beginning:
        """Take a round into an empty processor; returns where the log goes on.

        Raises CheckpointUnusable if the log does not lead to where the round began, or a block does not fit.
        """
        blocks = blocks_of(found, self._messages(found.after))
        beginning = read_beginning(next(blocks))
        self._verify(beginning)
        processor.restore(beginning)
        for block in blocks:
            processor.restore_block(block)
        self._begun_at = beginning.at.expected
        return beginning

    def rejected(self, found: FoundRound | None, why: object) -> None:
        """Say that a round was not used."""
        self._logger.warning("checkpoint not used", number=found and found.number, why=str(why))

    def _verify(self, beginning: Beginning) -> None:
        """Read the log from a place before the round to its beginning: it must be the same log."""
        before, at = beginning.before, beginning.at
        end = self._log.end(self._events, self._partition)
        if at.after is not None and (end is None or end < at.after):
            raise CheckpointUnusable("the log ends before the message that the checkpoint goes on from")
        rule = ReadRule(before.owner, before.expected)
        reader = self._log.reader(self._events, self._partition, after=before.after)
        try:
            while at.after is not None:
                self._beat()
                messages = reader.read(messages_max=1000, timeout_seconds=_GAP_SECONDS)
                for message in messages:
                    number, owner, _ = read_head(message.payload)
                    rule.judge(number, owner)
                    if message.id == at.after:
                        if (rule.owner, rule.expected) != (at.owner, at.expected):
                            raise CheckpointUnusable("the log has another history")
                        return
                if not messages or messages[-1].id > at.after:
                    raise CheckpointUnusable("the log does not have the message that the checkpoint goes on from")
        finally:
            reader.close()

    def _messages(self, after: MessageId | None) -> Iterator[tuple[MessageId, bytes]]:
        """What stands on the checkpoint topic behind a message. Less is no harm: an older round is found, or none."""
        try:
            yield from self._read(after)
        except (AccessDenied, DataFolderError) as error:
            self._logger.warning("checkpoints cannot be read", why=str(error))

    def _read(self, after: MessageId | None) -> Iterator[tuple[MessageId, bytes]]:
        end = self._log.end(self._topic, self._partition)
        if end is None or (after is not None and end <= after):
            return
        reader = self._log.reader(self._topic, self._partition, after=after)
        try:
            while messages := reader.read(messages_max=16, timeout_seconds=_GAP_SECONDS):
                for message in messages:
                    self._beat()
                    yield message.id, message.payload
                if messages[-1].id >= end:
                    return
        finally:
            reader.close()

    # --- rounds -----------------------------------------------------------------------------------------------------

    def write(self, processor: PartitionProcessor, marks: Marks) -> bool:
        """Write what is due; returns whether a round has become whole by it. To be called when all decided commits are
        stored, and before the next is decided.

        1. Begins a round, if it is time. 2. Appends the blocks that are due. 3. When the round is whole, lets the log
        drop what is older than two rounds.
        """
        try:
            if self._round is None:
                if processor.next_number - self._begun_at < self._commits:
                    return False
                self._begin(processor, marks)
            self._append_due(processor.next_number)
        except MagnetarError as error:
            self._abandon(processor.next_number, error)
            return False
        return self._round is None

    def write_whole(self, processor: PartitionProcessor, marks: Marks) -> int:
        """Write a round at once, from its beginning to its end, and let the log drop what is older than two rounds.

        Returns its weight, in states. Raises OwnershipLost if a worker began one meanwhile: then nothing was written
        that anybody would use.
        """
        self._begin(processor, marks)
        if self._appender is not None:
            for done, payload in self._blocks:
                self._last = self._appender.append([Entry("", payload)], timeout_seconds=_APPEND_TIMEOUT_SECONDS)
                self._done = done
        self._complete()
        return self._done

    def close(self) -> None:
        """Leave the round as it is."""
        if self._appender is not None:
            self._appender.close()
            self._appender = None

    def _begin(self, processor: PartitionProcessor, marks: Marks) -> None:
        if self._appender is None:
            self._appender = self._log.fence(self._topic, self._partition, schema=CHECKPOINT_JSON, name=self._name)
            self._last = self._look_again()
        self._round = processor.begin_round(marks.before_last(), marks.last, marks.thinned(_MARK_COMMITS))
        self._blocks = self._round.blocks()
        self._done = 0
        self._begun_at = processor.next_number
        owner, number = marks.last.owner or b"", self._round.number
        self._rounds.append(FoundRound(self._fingerprint, owner, number, self._last, False))

    def _append_due(self, number: int) -> None:
        """Blocks, until the share of the states that are written is that of the round's stretch that is over."""
        current, appender = self._round, self._appender
        if current is None or appender is None:
            return
        stretch = max(self._commits, current.weight)
        while self._done * stretch <= (number - self._begun_at) * current.weight:
            block = next(self._blocks, None)
            if block is None:
                self._complete()
                return
            self._done, payload = block
            self._last = appender.append([Entry("", payload)], timeout_seconds=_APPEND_TIMEOUT_SECONDS)

    def _complete(self) -> None:
        self._rounds[-1] = self._rounds[-1]._replace(is_whole=True)
        self._round = None
        self._logger.info("checkpoint written", number=self._rounds[-1].number, states=self._done)
        keep = kept(self._rounds)
        self._rounds = self._rounds[self._rounds.index(keep) :]
        if keep.after is not None:
            self._log.trim(self._topic, self._partition, through=keep.after)

    def _abandon(self, number: int, error: Exception) -> None:
        """Give this round up, and begin another one later, with another appender."""
        self._logger.warning("checkpoint not written", why=str(error))
        self.close()
        self._round = None
        self._begun_at = number

    def _look_again(self) -> MessageId | None:
        """The last message on the topic, behind which nobody else can write any more.

        Takes note of rounds that somebody else has written meanwhile (`magnetar checkpoint build`): they are kept too.
        """
        start = self._rounds[-1].after if self._rounds else None
        last: MessageId | None = None

        def messages() -> Iterator[tuple[MessageId, bytes]]:
            nonlocal last
            for id, payload in self._messages(start):
                last = id
                yield id, payload

        self._rounds[-1:] = find_rounds(messages(), start)
        return last


def kept(rounds: Sequence[FoundRound]) -> FoundRound:
    """The oldest round that is still needed: the second newest whole one of each of the two newest fingerprints."""
    fingerprints: list[bytes] = []
    needed = rounds[-1]
    counts: dict[bytes, int] = {}
    for each in reversed(rounds):
        if each.fingerprint not in fingerprints:
            if len(fingerprints) == FINGERPRINTS_KEPT:
                continue
            fingerprints.append(each.fingerprint)
        if each.is_whole and counts.get(each.fingerprint, 0) < ROUNDS_KEPT:
            counts[each.fingerprint] = counts.get(each.fingerprint, 0) + 1
            needed = each
    return needed
