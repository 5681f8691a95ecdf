"""What the partitions of one process may keep in memory between them."""

from __future__ import annotations

from typing import Final, Protocol

STATES_MAX: Final = 1_000_000
"""How many states a process keeps in memory by default: some 220 MB of small ones. The others go to disk."""

IDS_MAX: Final = 4_000_000
"""How many command ids a process remembers by default: some 130 MB. With more within the window, it is shorter."""


class Holder(Protocol):
    """What keeps things for one partition, and can do with fewer of them."""

    def held(self) -> int:
        """How many it keeps."""
        ...

    def give_up(self, count: int) -> None:
        """Keep about so many fewer, or as many as can be given up at once: it is asked again."""
        ...


class Allowance:
    """So many things of one kind, shared by holders who say now and then how many they keep.

    When there are too many, the one that keeps the most gives some up, until there are not. So a partition on which
    nothing happens does not crowd out a busy one, and each can count on an equal share. It is for one thread: holders
    give things up while another one asks for room.
    """

    def __init__(self, total_max: int) -> None:
        self._total_max = total_max
        self._total = 0
        self._held: dict[Holder, int] = {}

    def __len__(self) -> int:
        return self._total

    def settle(self, holder: Holder) -> None:
        """Take down how many the holder keeps; let whoever keeps the most give up what is too much."""
        self._note(holder)
        if self._total > self._total_max:
            self._shrink()

    def leave(self, holder: Holder) -> None:
        """Forget a holder who keeps nothing any more."""
        self._total -= self._held.pop(holder, 0)

    def _note(self, holder: Holder) -> None:
        held = holder.held()
        self._total += held - self._held.get(holder, 0)
        self._held[holder] = held

    def _shrink(self) -> None:
        able = dict.fromkeys(self._held)  # in their order, so that a run can be repeated
        while able and (excess := self._total - self._total_max) > 0:
            largest = max(able, key=self._held.__getitem__)
            before = self._held[largest]
            largest.give_up(excess)
            self._note(largest)
            if self._held[largest] >= before:
                del able[largest]


class Budget:
    """The memory of one process: one for all its partitions, of all its aggregates."""

    def __init__(self, *, states_max: int = STATES_MAX, ids_max: int = IDS_MAX) -> None:
        self.states = Allowance(states_max)
        self.ids = Allowance(ids_max)
