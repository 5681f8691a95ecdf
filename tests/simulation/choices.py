"""The decisions of a run: drawn from one random source, or repeated from a list; 0 is always the harmless one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

Decisions = dict[str, int]
"""What was decided otherwise than harmlessly: the n-th decision of a stream, as `stream#n`, and its value.

Decisions are numbered per stream (who asks, and what), so that taking one away does not change what the others mean.
"""


class Choices:
    """Draws decisions from a random seed and remembers them, or repeats remembered ones."""

    def __init__(self, seed: int, repeated: Mapping[str, int] | None = None) -> None:
        self._rng = random.Random(seed)
        self._repeated = repeated
        self._asked: Counter[str] = Counter()
        self.made: Decisions = {}

    def pick(self, stream: str, below: int, *, at: int | None = None) -> int:
        """A number from 0 to `below - 1`. `at` numbers the decision; without, each stream counts."""
        drawn = int(self._rng.random() * below) if self._repeated is None else None
        return self._decide(self._key(stream, at), drawn, below)

    def strikes(self, stream: str, one_in: int, *, at: int | None = None) -> bool:
        """Whether something happens that happens once in so many times."""
        drawn = int(self._rng.random() * one_in < 1) if self._repeated is None else None
        return self._decide(self._key(stream, at), drawn, 2) == 1

    def is_given(self, stream: str, at: int) -> bool:
        """A decision that is never drawn, only made in a list of decisions, to make it smaller."""
        return self._decide(f"{stream}#{at}", 0 if self._repeated is None else None, 2) == 1

    def _key(self, stream: str, at: int | None) -> str:
        if at is None:
            self._asked[stream] += 1
            at = self._asked[stream]
        return f"{stream}#{at}"

    def _decide(self, key: str, drawn: int | None, below: int) -> int:
        value = drawn if drawn is not None else self._given(key) % below
        if value:
            self.made[key] = value
        return value

    def _given(self, key: str) -> int:
        return 0 if self._repeated is None else self._repeated.get(key, 0)


def written(decisions: Mapping[str, int]) -> str:
    """Decisions as text for a command line; `skipped` turns are joined into spans."""
    skipped = sorted(int(key.split("#")[1]) for key in decisions if key.startswith("skipped#"))
    spans: list[list[int]] = []
    for at in skipped:
        if spans and spans[-1][1] == at - 1:
            spans[-1][1] = at
        else:
            spans.append([at, at])
    others = [f"{key}={value}" for key, value in decisions.items() if not key.startswith("skipped#")]
    return ",".join([*others, *(f"skipped#{first}-{last}=1" for first, last in spans)])


def read(text: str) -> Decisions:
    """The inverse of `written`."""
    decisions: Decisions = {}
    for part in filter(None, text.split(",")):
        key, value = part.rsplit("=", 1)
        stream, _, span = key.rpartition("#")
        first, _, last = span.partition("-")
        decisions |= {f"{stream}#{at}": int(value) for at in range(int(first), int(last or first) + 1)}
    return decisions
