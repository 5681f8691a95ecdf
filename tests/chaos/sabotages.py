"""Protections of the real adapters taken away, by a patch within the process under test: the tests must notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from magnetar.pipelines import projector
from magnetar.pipelines.feeding import Feeding
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_send import PulsarAppender, Sender
from magnetar.pipelines.logs.sqlite import SqliteAppender
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.worker import Worker
from magnetar.projections.leased_table import LeasedTable
from magnetar.projections.mirror import Mirror
from magnetar.schemas import Topic

from tests.chaos.processes import eventually

AHEAD: Final = 100
"""Commits that a reader has seen, and misses behind the swap until what was being filled has taken them in."""


def put(method: Callable[..., Any], owner: Any, name: str) -> None:
    """Put a method in the place of one that protects, in this process alone. Raises AttributeError for one that is not
    there."""
    getattr(owner, name)
    setattr(owner, name, method)


def no_fence() -> None:
    """Whoever owned a partition once may go on writing to it."""
    append = SqliteAppender.append

    def append_anyway(self: Any, entries: Any, *, timeout_seconds: float) -> Any:
        (self._nonce,) = self._connection.execute("SELECT nonce FROM owner").fetchone()
        return append(self, entries, timeout_seconds=timeout_seconds)

    put(append_anyway, SqliteAppender, "append")


def no_exclusive_producers() -> None:
    """On Pulsar, whoever owned a partition once may go on writing to it, and does not ask whether it is still its own.

    That question is no protection: it saves memory, and comes when there is nothing to do. But it hides what is looked
    for here most of the time.
    """

    def fence_nobody(self: Any, topic: Topic, partition: int, *, schema: str, name: str) -> Any:
        producer = self._writers.create_producer(self._url(topic, partition), **self._producer(schema))
        return PulsarAppender(Sender(producer, self.message_bytes_max, self._clock))

    put(fence_nobody, PulsarLog, "fence")
    put(lambda _: None, Worker, "_forget_what_others_have")


def lease_not_checked() -> None:
    """Inserts do not look whether their lease is the newest."""
    put(lambda *_: "1", LeasedTable, "_guard")


def older_inserts_not_stopped() -> None:
    """The lease is checked, and what an older owner has begun to insert is not waited for."""
    put(lambda *_: None, LeasedTable, "stop_older_inserts")


def swapped_while_behind() -> None:
    """The views are swapped without looking how far the generation is that they show."""
    put(lambda *_: {}, Mirror, "last_numbers")


def shown_tables_go_on() -> None:
    """Where several projectors feed, the shown tables do not stand still while the views are swapped.

    Besides, what is being filled takes three seconds for each round, and the swap waits until the shown ones are well
    ahead of it. If they stand still, they never are.
    """
    step, swap = Feeding.step, Projector._swap

    def step_slowly(self: Any) -> int:
        if not self._is_shown:
            time.sleep(3.0)  # the fault that is put in: a filler so slow that readers can see what it lacks
        return step(self)

    def swap_behind(self: Any, target: Any, generation: int, leases: Any) -> None:
        shown = {table: self._goal(table) for table in target.tables(generation)}
        eventually(
            lambda: self._lacking(target, generation, projector._goals(shown)) >= AHEAD, "the shown tables are ahead"
        )
        swap(self, target, generation, leases)

    put(step_slowly, Feeding, "step")
    put(swap_behind, Projector, "_swap")
    put(lambda _: [], projector, "stand_still")


SABOTAGES: Final[dict[str, Callable[[], None]]] = {
    each.__name__: each
    for each in (
        no_fence,
        no_exclusive_producers,
        lease_not_checked,
        older_inserts_not_stopped,
        swapped_while_behind,
        shown_tables_go_on,
    )
}
