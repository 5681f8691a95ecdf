"""A sample of what is recorded of an aggregate: the first commits of some of its partitions."""

from __future__ import annotations

from typing import Final

PARTITION_COMMITS_MIN: Final = 500
"""A sample takes so many of a partition before it takes of another. Keys are spread over the partitions at random, so
that one partition is as good a sample as all; and a scratch table costs 0.06 seconds of processor time for each."""


class Sample:
    """Counts down what is still to be taken, partition by partition in their order."""

    def __init__(self, commits: int | None, partitions: int) -> None:
        """So many commits of an aggregate; None for all."""
        self._left = commits
        self._share = 0 if commits is None else max(PARTITION_COMMITS_MIN, -(-commits // partitions))

    @property
    def of_next(self) -> int | None:
        """How many commits of the next partition are in it, if it has as many; None for all."""
        return None if self._left is None else min(self._left, self._share)

    def took(self, commits: int) -> None:
        """The partition had so many."""
        if self._left is not None:
            self._left -= commits
