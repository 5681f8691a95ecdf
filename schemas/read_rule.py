"""Which commits on an event topic count: one pure rule for recovery, mirror, projections, tests and other teams."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

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


class ReadRule:
    """The rule's state over one partition: the current owner and the number that it must write next.

    Whoever resumes in mid-log keeps `owner` and `expected` together with the position of the message they follow.
    """

    __slots__ = ("expected", "owner")

    def __init__(self, owner: bytes | None = None, expected: int = 1) -> None:
        self.owner = owner
        self.expected = expected

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
            return Verdict.CLAIM
        if owner != self.owner:
            return Verdict.VOID
        if number == self.expected:
            self.expected = number + 1
            return Verdict.COUNTS
        if number < self.expected:
            return Verdict.DUPLICATE
        self.owner = None
        return Verdict.ORPHAN
