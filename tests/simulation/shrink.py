"""Making a failing run small: as few turns and as few decisions as still go wrong, and its schedule for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.simulation.choices import Decisions, written
from tests.simulation.judge import violations
from tests.simulation.world import World

TURNS: Final = 200
RUNS_MAX: Final = 2000
"""How many runs a shrinking may take: about half a minute."""


PROCESSES: Final = ("projector-6", "projector-7", "client-1", "client-2", "worker-3", "worker-4", "worker-5")


class Failure(NamedTuple):
    """A run with violations. It is repeated by its decisions alone; the seed still makes the ids and nonces."""

    seed: int
    turns: int
    decisions: Decisions
    found: list[str]


def run(
    seed: int, turns: int, *, repeated: Mapping[str, int] | None = None, tracing: bool = False
) -> tuple[World, list[str]]:
    """One run, and what is wrong with it."""
    world = World(seed, repeated=repeated, tracing=tracing)
    world.run(turns)
    return world, violations(world)


def first_failure(seeds: range, turns: int = TURNS) -> Failure | None:
    """The first seed with violations."""
    for seed in seeds:
        world, found = run(seed, turns)
        if found:
            return Failure(seed, turns, world.choices.made, found)
    return None


class Shrinker:
    """Takes decisions away, many at a time and then one by one, as long as something still goes wrong."""

    def __init__(self, failure: Failure) -> None:
        self.best = failure
        self._runs = 0

    def shrink(self) -> Failure:
        """The smallest failure that was found."""
        self._fewer_turns()
        before = None
        while before != (self.best.turns, self.best.decisions) and self._runs < RUNS_MAX:
            before = (self.best.turns, self.best.decisions)
            self._fewer_processes()
            self._fewer_kinds()
            for size in halves(len(self.best.decisions)):
                self._fewer_decisions(size)
            self._sooner()
            self._fewer_turns()
        for size in halves(self.best.turns):
            self._skip_turns(size)
        return self.best

    def _try(self, turns: int, decisions: Mapping[str, int]) -> bool:
        if self._runs >= RUNS_MAX:
            return False
        self._runs += 1
        world, found = run(self.best.seed, turns, repeated=decisions)
        if found:
            self.best = Failure(self.best.seed, turns, world.choices.made, found)
        return bool(found)

    def _fewer_turns(self) -> None:
        low, high = 0, self.best.turns
        while low < high:
            middle = (low + high) // 2
            if self._try(middle, self.best.decisions):
                high = middle
            else:
                low = middle + 1

    def _fewer_processes(self) -> None:
        for name in PROCESSES:
            if f"muted {name}#1" not in self.best.decisions:
                self._try(self.best.turns, self.best.decisions | {f"muted {name}#1": 1})

    def _fewer_kinds(self) -> None:
        for kind in dict.fromkeys(kind_of(key) for key in list(self.best.decisions)):
            if not is_about_shrinking(kind):
                self._try(self.best.turns, {k: v for k, v in self.best.decisions.items() if kind_of(k) != kind})

    def _sooner(self) -> None:
        """The same fault at one of the first occasions instead of a later one, so that the turns before can go."""
        for key, value in list(self.best.decisions.items()):
            stream, _, number = key.rpartition("#")
            if key in self.best.decisions and not is_about_shrinking(key):
                others = {k: v for k, v in self.best.decisions.items() if k != key}
                any(
                    self._try(self.best.turns, {**others, f"{stream}#{n}": value})
                    for n in range(1, min(int(number), 8))
                )

    def _skip_turns(self, size: int) -> None:
        for start in range(1, self.best.turns + 1, size):
            skipped = {f"skipped#{at}": 1 for at in range(start, min(start + size, self.best.turns + 1))}
            if not skipped.keys() <= self.best.decisions.keys():
                self._try(self.best.turns, self.best.decisions | skipped)

    def _fewer_decisions(self, size: int) -> None:
        at = 0
        while at < len(keys := [key for key in self.best.decisions if not is_about_shrinking(key)]):
            taken = set(keys[at : at + size])
            if not self._try(self.best.turns, {k: v for k, v in self.best.decisions.items() if k not in taken}):
                at += size


def kind_of(key: str) -> str:
    """What a decision is about, without who asked and how often."""
    return key.rpartition("#")[0].rpartition(":")[2]


def is_about_shrinking(key: str) -> bool:
    """Whether a decision only makes the schedule smaller."""
    return key.startswith(("skipped", "muted"))


def halves(count: int) -> list[int]:
    """Block sizes to try: a half, a quarter, …, 1."""
    sizes = []
    while count > 1:
        count //= 2
        sizes.append(count)
    return sizes


def story(failure: Failure) -> str:
    """A failing run for people: what is wrong, its smallest schedule, and how to repeat it."""
    small = Shrinker(failure).shrink()
    world, found = run(small.seed, small.turns, repeated=small.decisions, tracing=True)
    turns = small.turns - sum(key.startswith("skipped") for key in small.decisions)
    decisions = [key for key in small.decisions if not is_about_shrinking(key)]
    repeat = f"python -m tests.simulation.repeat {failure.seed}"
    return "\n".join(
        (
            f"random seed {failure.seed}: {failure.found[0]}",
            f"the smallest schedule found: {turns} turns, {len(decisions)} decisions that are not the harmless ones",
            *world.stage.trace,
            "what is wrong in the end:",
            *found,
            f"repeat the whole run: {repeat} --turns {failure.turns}",
            f"repeat the smallest:  {repeat} --turns {small.turns} --decisions '{written(small.decisions)}'",
        )
    )
