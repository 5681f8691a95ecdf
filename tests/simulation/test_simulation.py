"""Two thousand seeds without a violation; and each protection taken away is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from magnetar.aggregates import IdWindow, PartitionProcessor
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.memory import MemoryAppender, MemoryLog
from magnetar.pipelines.worker import Worker
from magnetar.projections.range_loop import RangeLoop
from magnetar.schemas import ReadRule, Verdict

from tests.simulation.conftest import STEPS, first_failure, story
from tests.simulation.scheduler import simulate
from tests.simulation.store_model import StoreModel

SEEDS, BLOCKS, SABOTAGE_SEEDS = 2000, 20, 200
Sabotage = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_violation(block: int) -> None:
    size = SEEDS // BLOCKS
    failure = first_failure(range(block * size, (block + 1) * size))
    assert failure is None, story(*failure)


def test_a_seed_repeats_its_run() -> None:
    assert simulate(7, STEPS).trace == simulate(7, STEPS).trace


# --- sabotages: what protects is taken away, here and not by a switch in the product ----------------------------------


def acknowledge_before_append(patch: pytest.MonkeyPatch) -> None:
    shipped = Worker._append

    def append(self: Any, owned: Any, partition: int, decisions: Any, first: int) -> None:
        self._consumer.acknowledge(partition, self._batch.messages[-1].id)
        shipped(self, owned, partition, decisions, first)

    remember_the_batch(patch)
    patch.setattr(Worker, "_append", append)


def remember_the_batch(patch: pytest.MonkeyPatch) -> None:
    carry_through = Worker._carry_through

    def remembering(self: Any, owned: Any, batch: Any) -> None:
        self._batch = batch
        carry_through(self, owned, batch)

    patch.setattr(Worker, "_carry_through", remembering)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    def store(self: Any, entry: Entry) -> Any:
        return self._partition.store(entry, self._log.clock.now_ms(), self._schema)

    patch.setattr(MemoryAppender, "_store", store)


def claim_not_read(patch: pytest.MonkeyPatch) -> None:
    """Read to the end that is there when the fence has returned, and claim only then."""
    fence = MemoryLog.fence

    def fence_and_note_the_end(self: Any, topic: Any, partition: int, **names: Any) -> Any:
        appender = fence(self, topic, partition, **names)
        self.end = len(self.broker.topic(topic).partitions[partition].messages)
        return appender

    def recover(self: Any, partition: int, owned: Any) -> None:
        reader, rule, owned.schema = self._log.reader(self._events, partition, after=None), ReadRule(), 1
        for message in reader.read(messages_max=self._log.end, timeout_seconds=0) if self._log.end else ():
            self._is_own_claim(message, owned, rule)

    patch.setattr(MemoryLog, "fence", fence_and_note_the_end)
    patch.setattr(Worker, "_recover", recover)


def reply_before_append(patch: pytest.MonkeyPatch) -> None:
    append, reply = Worker._append, Worker._reply

    def reply_first(self: Any, owned: Any, partition: int, decisions: Any, first: int) -> None:
        reply(self, owned, partition, decisions)
        append(self, owned, partition, decisions, first)

    patch.setattr(Worker, "_append", reply_first)
    patch.setattr(Worker, "_reply", lambda *_: None)


def prefetched_dropped_without_closing_the_consumer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Worker, "_drop", lambda self, partition, *_: self._forget(partition))


def number_not_checked(patch: pytest.MonkeyPatch) -> None:
    def judge(self: Any, number: int, owner: bytes) -> Verdict:
        if number == 0:
            self.owner = owner
            return Verdict.CLAIM
        if owner != self.owner:
            return Verdict.VOID
        self.expected = number + 1
        return Verdict.COUNTS

    patch.setattr(ReadRule, "judge", judge)


def source_and_id_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PartitionProcessor, "_was_decided", lambda *_: False)
    patch.setattr(IdWindow, "find", lambda *_: None)


def pending_row_skipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StoreModel, "write_pending", lambda *_: None)


def pending_row_not_taken_over(patch: pytest.MonkeyPatch) -> None:
    """Replay an older owner's range without writing it down under the own lease."""
    replay = RangeLoop._replay

    def replay_silently(self: Any, pending: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._store, "write_pending", lambda *_: None)
            replay(self, pending)

    patch.setattr(RangeLoop, "_replay", replay_silently)


def lease_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StoreModel, "is_newest", lambda *_: True)


CAUGHT: list[Sabotage] = [
    acknowledge_before_append,
    no_fence,
    claim_not_read,
    reply_before_append,
    prefetched_dropped_without_closing_the_consumer,
    number_not_checked,
    source_and_id_not_checked,
    pending_row_skipped,
    lease_not_checked,
    pending_row_not_taken_over,
]


@pytest.mark.parametrize("sabotage", CAUGHT, ids=lambda sabotage: sabotage.__name__)
def test_sabotage_is_caught(sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    failure = first_failure(range(SABOTAGE_SEEDS))
    assert failure is not None, f"{sabotage.__name__} was not noticed in {SABOTAGE_SEEDS} seeds"
    print(f"{sabotage.__name__}: caught by {story(*failure)}")
