"""Generations of a table: which one its view shows, which ones are fed, and which one is to be shown next.

What has been done and wished for is a list of steps in ClickHouse; what that comes to is a pure fold of it. So whoever
is killed, the next one finds in the steps what is left to do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

from magnetar.schemas import LeaseLost, SettingsError, StoreUnavailable

from .columns import literal
from .held_leases import Held, is_lease_lost
from .store import Store

DEFINITION: Final = (
    "CREATE TABLE IF NOT EXISTS magnetar.generations (`projection` LowCardinality(String), "
    "aggregate LowCardinality(String), nth UInt32, generation UInt32, step LowCardinality(String), "
    "at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY (`projection`, aggregate, nth) "
    "COMMENT 'what was done to the generations of each table, and what is wished'"
)


WITH_ORIGIN: Final = (
    "ALTER TABLE magnetar.generations ADD COLUMN IF NOT EXISTS origin LowCardinality(String) DEFAULT 'topics' "
    "COMMENT 'what a wanted generation is filled from at first'"
)


K = TypeVar("K")


class Origin(StrEnum):
    """What a generation is filled from at first. What is written meanwhile always comes from the topics."""

    TOPICS = "topics"
    MIRROR = "mirror"


class Kind(StrEnum):
    """What happened to a generation."""

    WANTED = "wanted"
    """It is to be fed, and to be shown as soon as it has caught up with the one that is shown."""
    SHOWN = "shown"
    """The views show it."""
    DROPPED = "dropped"
    """It is not fed any more, and its tables are gone, or will be."""


class Step(NamedTuple):
    """One step of the history of a table's generations."""

    generation: int
    kind: Kind
    origin: Origin = Origin.TOPICS
    """Of one that is wanted."""


class Generations(NamedTuple):
    """What the steps come to. Without any, generation 1 is fed and shown."""

    fed: tuple[int, ...] = (1,)
    """Those that are written, in the order of their numbers."""
    shown: int = 1
    before: int | None = None
    """The one that was shown before, if it is fed still."""
    wanted: int | None = None
    """The one that is to be shown next."""
    filling: int | None = None
    """The wanted one, if it was never shown: it is behind, perhaps by the whole log."""
    last: int = 1
    """The greatest number that was ever given to one."""
    origin: Origin = Origin.TOPICS
    """What `filling` is filled from."""
    swaps: int = 0
    """How often another one was shown."""

    def after(self, step: Step) -> Generations:
        """What a step makes of them. A step that means nothing here changes nothing."""
        generation, kind, origin = step
        if kind is Kind.WANTED and generation in self.fed:
            return self if generation == self.shown else self._replace(wanted=generation)
        if kind is Kind.WANTED and generation > self.last:
            fed = (*self.fed, generation)
            return self._replace(fed=fed, wanted=generation, filling=generation, last=generation, origin=origin)
        if kind is Kind.SHOWN and generation in self.fed and generation != self.shown:
            return self._replace(shown=generation, before=self.shown, wanted=None, filling=None, swaps=self.swaps + 1)
        if kind is Kind.DROPPED and generation in self.fed and generation != self.shown:
            return self._without(generation)
        return self

    def _without(self, generation: int) -> Generations:
        wanted, filling, before = (
            None if each == generation else each for each in (self.wanted, self.filling, self.before)
        )
        fed = tuple(each for each in self.fed if each != generation)
        return self._replace(fed=fed, wanted=wanted, filling=filling, before=before)

    # --- wishes: what is to be written down for each ------------------------------------------------------------------

    def rebuild(self, origin: Origin = Origin.TOPICS) -> list[Step]:
        """Fill the next generation; those that are neither shown nor being filled are dropped first.

        A rebuild that is under way goes on: nothing is to be written down. Raises SettingsError if it is to be from the
        mirror, and the one that is under way is not.
        """
        if self.filling is not None:
            if origin is Origin.MIRROR and self.origin is not Origin.MIRROR:
                raise SettingsError(
                    f"Generation {self.filling} is being filled from the topics already.",
                    cure="Let it go on, without `--from mirror`; or give it up with `--cancel`, and repeat this.",
                )
            return [] if self.wanted == self.filling else [Step(self.filling, Kind.WANTED)]
        return [*self._drop_idle(), Step(self.last + 1, Kind.WANTED, origin)]

    def rollback(self) -> list[Step]:
        """Show again what was shown before. Raises SettingsError if that is gone."""
        if self.before is None:
            raise SettingsError(
                f"Generation {self.shown} is shown, and none that was shown before is kept.",
                cure="A rollback is possible from a rebuild's swap until `--drop-old` or the next rebuild.",
            )
        return [] if self.wanted == self.before else [Step(self.before, Kind.WANTED)]

    def drop_old(self) -> list[Step]:
        """Drop what is neither shown nor being filled. Raises SettingsError if there is nothing."""
        if not (steps := self._drop_idle()):
            raise SettingsError(
                f"Generation {self.shown} is shown, and no older one is kept.", cure="There is nothing to do."
            )
        return steps

    def cancel(self) -> list[Step]:
        """Give up the rebuild that is under way. Raises SettingsError if there is none."""
        if self.filling is None:
            raise SettingsError("No rebuild is under way.", cure="See `magnetar rebuild MODULE --status`.")
        return [Step(self.filling, Kind.DROPPED)]

    def _drop_idle(self) -> list[Step]:
        return [Step(each, Kind.DROPPED) for each in self.fed if each not in (self.shown, self.filling)]


def of_steps(steps: Iterable[Step]) -> Generations:
    """Fold the steps, in their order."""
    found = Generations()
    for step in steps:
        found = found.after(step)
    return found


def behind(shown: Mapping[K, int], wanted: Mapping[K, int]) -> dict[K, int]:
    """By partition, how many commits the wanted generation lacks of those that the shown one has.

    Both arguments are the number of the last commit by partition. Only when this is empty may the views be swapped: a
    reader who has seen an event sees it again.
    """
    return {p: number - wanted.get(p, 0) for p, number in shown.items() if number > wanted.get(p, 0)}


class GenerationTable:
    """The steps in ClickHouse, of the mirrors of all aggregates and of all projections.

    `projection` is `mirror` or a class's name, `aggregate` is `context/Aggregate`, or the context alone for all of a
    projection's aggregates together.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()

    def read(self, projection: str, aggregate: str) -> Generations:
        """What the steps come to."""
        return of_steps(self._steps(projection, aggregate))

    def write(self, projection: str, aggregate: str, steps: Iterable[Step], leases: Sequence[Held] = ()) -> Generations:
        """Write steps down behind those that stand there; returns what they come to. They are durable then.

        Raises LeaseLost, and writes nothing, if one of the leases is not held any more.
        """
        with self._lock:
            known = self._steps(projection, aggregate)
            for step in steps:
                known.append(step)
                self._insert(projection, aggregate, len(known), step, leases)
            return of_steps(known)

    def _insert(self, projection: str, aggregate: str, nth: int, step: Step, leases: Sequence[Held]) -> None:
        """The values stand in the statement: ClickHouse keeps no comment of one with parameters, and so no mark."""
        marks = "".join(f"/* {each.mark} */ " for each in leases)
        conditions = " AND ".join(each.condition for each in leases) or "1"
        try:
            self._store.command(
                f"{marks}INSERT INTO magnetar.generations (`projection`, aggregate, nth, generation, step, origin) "
                f"SELECT {literal(projection)}, {literal(aggregate)}, {nth}, {step.generation}, "
                f"{literal(step.kind.value)}, {literal(step.origin.value)} WHERE {conditions}"
            )
        except StoreUnavailable as error:
            if is_lease_lost(error):
                raise LeaseLost("Another projector feeds a table again that was to stand still.") from error
            raise

    def _steps(self, projection: str, aggregate: str) -> list[Step]:
        found = self._store.query(steps_query(projection, aggregate))
        return [Step(generation, Kind(kind), *map(Origin, origin)) for generation, kind, *origin in found]


def steps_query(projection: str, aggregate: str) -> str:
    """The query whose rows are the steps, as GenerationTable names them. Tables that an older projector has made have
    no origin yet, and whoever looks from outside does not make it. Of two that were written down at once, everybody
    takes the same for the first."""
    return (
        "SELECT generation, step, COLUMNS('^origin$') FROM magnetar.generations "
        f"WHERE `projection` = {literal(projection)} AND aggregate = {literal(aggregate)} "
        "ORDER BY nth, at, step, generation"
    )
