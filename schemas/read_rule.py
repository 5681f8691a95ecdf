"""Which commits on an event topic count: one pure rule for recovery, mirror, projections, tests and other teams."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from .topics import MessageId


class Verdict(Enum):
    """What the read rule says of one message of an event topic."""

    CLAIM = "claim"
    """It opens an ownership: its owner is the current one from here on."""
    COUNTS = "counts"
    """It is part of the log."""
    DUPLICATE = "duplicate"
    """The current owner's, with a number that has been counted already: drop it."""
    ORPHAN = "orphan"
    """The current owner's, but a number is missing before it: this owner is void until the next claim."""
    VOID = "void"
    """Another owner's: it was never acknowledged to anybody."""


class Mark(NamedTuple):
    """A place in a partition to go on reading from: behind this message, with the rule in this state."""

    after: MessageId | None
    owner: bytes | None
    expected: int


START = Mark(None, None, 1)
"""The start of a partition."""

UNDER_WAY_MAX: Final = 10_000
"""No writer has sent so many commits that it was not told of yet: a worker's chunk has a tenth of that."""


class ReadRule:
    """The rule's state over one partition: the current owner and the number that it must write next.

    Whoever resumes in mid-log keeps `owner` and `expected` together with the position of the message they follow.
    """

    __slots__ = ("_beyond", "_has_claim", "expected", "owner")

    def __init__(self, owner: bytes | None = None, expected: int = 1) -> None:
        self.owner = owner
        self.expected = expected
        self._beyond: int | None = None
        self._has_claim = owner is not None

    @property
    def begins_at(self) -> int | None:
        """The number of a partition's first commit, if it is not 1; None as soon as one has counted.

        A writer whose first commits failed leaves that behind, until the next claim; or the log is cut.
        """
        return self._beyond if self.expected == 1 else None

    @property
    def is_cut(self) -> bool:
        """Whether the start of the log was removed, for certain.

        A log begins with a claim, and no writer misses so many commits.
        """
        begins_at = self.begins_at
        return begins_at is not None and (not self._has_claim or begins_at > UNDER_WAY_MAX)

    def judge(self, number: int, owner: bytes) -> Verdict:
        """Judge the next message of the partition, in the order of the log, by its `number` and `owner`.

        1. `number` 0 is a claim: its owner becomes the current one; the expected number stays.
        2. The current owner's expected number counts; a lower one is a duplicate.
        3. A higher one is an orphan: the writer has been told that a send failed. It and all that follows of this owner
           is void until the next claim.
        4. Everything of another owner is void.
        """
        if number == 0:
            self.owner = owner
            self._has_claim = self._has_claim or self._beyond is None
            return Verdict.CLAIM
        if owner != self.owner:
            self._note(number)
            return Verdict.VOID
        if number == self.expected:
            self.expected = number + 1
            return Verdict.COUNTS
        if number < self.expected:
            return Verdict.DUPLICATE
        self._note(number)
        self.owner = None
        return Verdict.ORPHAN

    def _note(self, number: int) -> None:
        if self._beyond is None and number > self.expected == 1:
            self._beyond = number
