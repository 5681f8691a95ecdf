"""Partitions of one process share its memory: whoever keeps the most gives up what is too much."""

import random
from collections.abc import Sequence
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate, Budget, Cells, IdWindow, StateCodec, StoredCell
from magnetar.aggregates.budget import Allowance
from magnetar.aggregates.id_window import packed
from magnetar.pipelines.spill import SqliteSpill
from magnetar.schemas import Command, DataFolderError, Event, PartitionRefused, uuid7

START_MS = 1_700_000_000_000


class Put(Command):
    pass


class Added(Event):
    total: int


class Jar(Aggregate):
    total: int = 0

    def execute(self, command: Put) -> Added:
        return Added(self.total + 1)

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


class FullDisk(SqliteSpill):
    """A disk that takes nothing."""

    def store(self, cells: Sequence[StoredCell]) -> None:
        raise DataFolderError("The disk is full.", cure="Make room.")


CODEC = StateCodec(Jar)


def cells_of(budget: Budget, spill: SqliteSpill | None = None) -> Cells:
    return Cells(CODEC, allowance=budget.states, spill=SqliteSpill() if spill is None else spill)


def fill(cells: Cells, ids: range, total: Any = None) -> None:
    for n in ids:
        cells.get(f"j{n}")
        cells.put(f"j{n}", n, Jar(n if total is None else total))


def found(cells: Cells, ids: range) -> list[Any]:
    return [cells.get(f"j{n}") for n in ids]


def expected(ids: range) -> list[Any]:
    return [(n, Jar(n)) for n in ids]


def test_many_partitions_keep_no_more_states_than_one_would() -> None:
    budget = Budget(states_max=1000)
    partitions = [cells_of(budget) for _ in range(8)]
    for start in range(0, 500, 50):
        for cells in partitions:
            fill(cells, range(start, start + 50))
            cells.settle()
            assert sum(each.held() for each in partitions) == len(budget.states) <= 1000
    assert all(100 <= each.held() <= 150 for each in partitions)
    for cells in partitions:
        assert found(cells, range(500)) == expected(range(500))


def test_a_partition_that_rests_makes_room_for_a_busy_one() -> None:
    budget = Budget(states_max=1000)
    resting, busy = cells_of(budget), cells_of(budget)
    fill(resting, range(1000))
    resting.settle()
    for start in range(0, 400, 10):
        fill(busy, range(start, start + 10))
        busy.settle()
    assert (resting.held(), busy.held()) == (600, 400)
    assert found(resting, range(1000)) == expected(range(1000))


def test_the_room_of_a_partition_that_is_lost_is_the_others() -> None:
    budget = Budget(states_max=100)
    lost, kept = cells_of(budget), cells_of(budget)
    fill(lost, range(100))
    lost.settle()
    lost.close()
    fill(kept, range(100))
    kept.settle()
    assert kept.held() == len(budget.states) == 100


def test_a_state_that_cannot_be_stored_refuses_its_own_partition_and_not_the_one_that_asked_for_room() -> None:
    budget = Budget(states_max=10)
    broken, sound = cells_of(budget), cells_of(budget)
    fill(broken, range(10), total=2**70)
    broken.settle()
    fill(sound, range(5))
    sound.settle()
    assert found(broken, range(10)) == [(n, Jar(2**70)) for n in range(10)]
    assert found(sound, range(5)) == expected(range(5))
    with pytest.raises(PartitionRefused, match="A state of Jar cannot be stored"):
        broken.settle()


def test_what_a_full_disk_did_not_take_is_still_there() -> None:
    cells = cells_of(Budget(states_max=3), FullDisk())
    fill(cells, range(10))
    with pytest.raises(DataFolderError):
        cells.settle()
    assert found(cells, range(10)) == expected(range(10))


def remember(window: IdWindow, ids: Sequence[bytes]) -> None:
    for number, id in enumerate(ids, 1):
        window.remember(id, number, START_MS)


def made(seed: int, count: int) -> list[bytes]:
    """Ids made over five minutes."""
    rng = random.Random(seed)
    return [packed(uuid7(START_MS - 300_000 + n * 300_000 // count, rng.getrandbits(74))) for n in range(count)]


def test_windows_share_their_ids_and_what_the_largest_forgets_is_expired() -> None:
    allowance = Allowance(3000)
    large, small = (IdWindow(allowance=allowance) for _ in range(2))
    large_ids, small_ids = made(1, 2500), made(2, 1000)
    remember(large, large_ids)
    remember(small, small_ids)
    assert len(large) + len(small) <= 3000 + 2 * 63
    assert [small.find(id) for id in small_ids] == list(range(1, 1001))
    for number, id in enumerate(large_ids, 1):
        assert (large.find(id) == number) != large.is_expired(id, START_MS)
    assert large.is_expired(large_ids[0], START_MS)


def test_a_window_restored_into_less_room_forgets_and_never_takes_it_back() -> None:
    """Its slices come in any order: one that is older than those forgotten must not make these look remembered."""
    ids = made(1, 3000)
    whole = IdWindow()
    remember(whole, random.Random(1).sample(ids, len(ids)))
    frozen, restored = whole.freeze(), IdWindow(allowance=Allowance(500))
    restored.restore(frozen.forgotten_ms, frozen.stamps)
    for piece in frozen.pieces():
        restored.restore_ids(piece)
    assert len(restored) <= 500
    for id in ids:
        assert restored.find(id) is not None or restored.is_expired(id, START_MS)


def test_the_newest_ids_stay_however_many_they_are() -> None:
    allowance = Allowance(100)
    windows = [IdWindow(allowance=allowance) for _ in range(3)]
    rng = random.Random(1)
    ids = [packed(uuid7(START_MS, rng.getrandbits(74))) for _ in range(1000)]
    for window in windows:
        remember(window, ids)
    assert all(window.find(id) is not None for window in windows for id in ids)
