"""Rows and folds on the real engine: each event counts once, whoever inserts it, and however often."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest
from magnetar.projections import Fold, fold_table
from magnetar.projections.projected_table import ProjectedTable
from magnetar.projections.store import Store
from magnetar.schemas import LeaseLost, PartitionRefused, StoreUnavailable
from magnetar.schemas.commit import read_head

from tests.unit.projections.projected import Balance, Boxes, Emptied, Ignored, Large, Put, Sorted, Taken
from tests.unit.projections.test_mirror import Crash, FakeFeed, crashing


def test_an_event_adds_the_rows_that_project_yields(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Large)
    boxes.commit("a", Put(250), Ignored("x"), Taken(100), actor="me")
    boxes.commit("b", Put(99))
    boxes.commit("b")
    boxes.commit("c", Taken(100))
    boxes.run()
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    columns = "amount, by, _id, _version, _number, _partition, _aggregate"
    assert boxes.rows(columns, "ORDER BY _number, _version") == [
        (250, "me", "a", 1, 1, 0, "Box"),
        (250, "me", "a", 1, 1, 0, "Box"),
        (100, "me", "a", 3, 1, 0, "Box"),
        (100, None, "c", 1, 4, 0, "Box"),
    ]
    assert boxes.rows("_at", "LIMIT 1") == [(at.replace(microsecond=1, tzinfo=boxes.rows("_at")[0][0].tzinfo),)]


def test_a_fold_has_one_row_for_each_key_and_none_for_what_is_deleted(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Balance)
    boxes.commit("a", Put(5), Put(7))
    boxes.commit("b", Put(1))
    boxes.commit("c", Put(1), Emptied())
    boxes.commit("a", Ignored("x"), Taken(2))
    boxes.commit("b", Emptied())
    boxes.commit("b", Put(3))
    boxes.run(range_commits_max=2)
    assert boxes.rows("_id, amount, history, _version, _number") == [("a", 10, [5, 7, -2], 4, 4), ("b", 3, [3], 3, 6)]


@pytest.mark.parametrize("projection", [Large, Sorted, Balance])
@pytest.mark.parametrize("failpoint", ["after_lease", "after_stop", "after_pending", "after_insert"])
def test_whoever_comes_after_a_crash_finishes_the_range_and_does_nothing_twice(
    store: Store, tmp_path: Path, projection: type[Any], failpoint: str
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    for nth in range(12):
        boxes.commit("ab"[nth % 2], Put(100 + nth))
        with pytest.raises(Crash):
            boxes.run(range_commits_max=5, failpoint=crashing(failpoint))
    boxes.run(range_commits_max=5)
    if projection is Balance:
        assert boxes.balances() == boxes.expected()
    else:
        assert boxes.rows("amount, _number") == [(100 + nth, nth + 1) for nth in range(12)]


@pytest.mark.parametrize("projection", [Large, Sorted, Balance])
def test_a_range_that_is_in_the_table_is_not_inserted_again_without_any_token(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    boxes.commit("a", Put(100))
    boxes.commit("a", Put(100))
    with pytest.raises(Crash):
        boxes.run(failpoint=crashing("after_insert"))
    store.command(f"ALTER TABLE {boxes.table.name} MODIFY SETTING non_replicated_deduplication_window = 0")
    boxes.run()
    boxes.run()
    assert boxes.rows("amount") == ([(200,)] if projection is Balance else [(100,), (100,)])


@pytest.mark.parametrize("projection", [Large, Balance])
def test_who_has_lost_the_lease_inserts_nothing(store: Store, tmp_path: Path, projection: type[Any]) -> None:
    boxes = Boxes(store, tmp_path, projection)
    boxes.commit("a", Put(100))
    old = boxes.loop()
    boxes.run()
    boxes.commit("a", Put(100))
    with pytest.raises(LeaseLost):
        old.step()
    boxes.run()
    assert boxes.rows("amount") == ([(100,), (100,)] if projection is Large else [(200,)])


@pytest.mark.parametrize("seed", range(4))
def test_a_fold_is_right_with_fewer_states_in_memory_than_keys_and_owners_that_crash(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    monkeypatch.setattr(fold_table, "STATES_BYTES_MAX", 12 * 270)
    boxes = Boxes(store, tmp_path, Balance)
    table: ProjectedTable | None = None
    for _ in range(12):
        for _ in range(random.randint(1, 12)):
            kinds = [Put(random.randint(1, 9)), Taken(random.randint(1, 9)), Emptied(), Ignored("x")]
            boxes.commit(f"k{random.randint(1, 9)}", *random.choices(kinds, (5, 3, 1, 1), k=random.randint(0, 3)))
        failpoint = crashing(random.choice(["after_lease", "after_pending", "after_insert", "never", "never"]))
        table = random.choice([None, boxes.open(), table])
        with contextlib.suppress(Crash):
            boxes.run(table=table, range_commits_max=random.randint(1, 9), failpoint=failpoint)
    boxes.run()
    assert boxes.balances() == boxes.expected()


def test_states_make_room_by_their_bytes_and_the_oldest_look_first() -> None:
    states = fold_table.States(10_000, is_whole=True)
    states.put({f"k{nth}": bytes(50) for nth in range(30)})
    states.put({"k0": bytes(50)})
    assert (len(states.of(f"k{nth}" for nth in range(30))), states.is_whole) == (30, True)
    states.put({"large": bytes(4000)})
    kept = states.of([*(f"k{nth}" for nth in range(30)), "large"])
    assert {"k0", "k29", "large"} <= kept.keys()
    assert "k1" not in kept
    assert not states.is_whole
    states.put({"larger": bytes(20_000)})
    assert states.of(["k0", "large", "larger"]) == {}


def test_states_that_are_not_in_memory_are_read_back_in_one_query(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = Boxes(store, tmp_path, Balance)
    for nth in range(50):
        boxes.commit(f"k{nth}", Put(nth))
    boxes.run()
    for nth in range(50):
        boxes.commit(f"k{nth}", Put(1000))
    asked: list[str] = []
    query = Store.query

    def noted(self: Store, sql: str, *rest: Any, **more: Any) -> Any:
        asked.append(sql)
        return query(self, sql, *rest, **more)

    monkeypatch.setattr(Store, "query", noted)
    boxes.run()
    assert len([sql for sql in asked if "_state" in sql]) == 1
    assert boxes.balances() == boxes.expected()


@pytest.mark.parametrize("projection", [Balance, Large])
def test_a_restart_reads_the_log_from_the_last_range_on_and_not_from_its_start(
    store: Store, tmp_path: Path, projection: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    for nth in range(40):
        boxes.commit(f"k{nth % 7}", Put(100 + nth))
    boxes.run(range_commits_max=4)
    numbers: list[int] = []
    read_run = FakeFeed.read_run

    def noted(self: Any, **limits: Any) -> Any:
        run = read_run(self, **limits)
        numbers.extend(read_head(payload)[0] for payload in (run.payloads if run else ()))
        return run

    monkeypatch.setattr(FakeFeed, "read_run", noted)
    boxes.run(
        range_commits_max=4
    )  # the last range is read once more, to be sure of it; the claim took one place of the first
    assert numbers == [40]
    boxes.commit("k3", Put(200))
    numbers.clear()
    boxes.run(range_commits_max=4)
    assert numbers == [40, 41]
    if projection is Balance:
        assert boxes.balances() == boxes.expected()


class Wrong(Fold):
    total: int = 0

    def apply(self, event: Put) -> Self:
        if event.amount == 13:
            raise ValueError("unlucky")
        return self.replace(total="many") if event.amount == 14 else self.replace(total=event.amount)


@pytest.mark.parametrize(
    ("amount", "what"), [(13, "raised ValueError on Put of Box 'a', version 2: unlucky"), (14, "TypeError on Put")]
)
def test_an_error_of_the_users_code_names_the_event(store: Store, tmp_path: Path, amount: int, what: str) -> None:
    boxes = Boxes(store, tmp_path, Wrong)
    boxes.keys_max = 0  # nothing is quarantined
    boxes.commit("a", Put(1), Put(amount))
    with pytest.raises(PartitionRefused, match=what):
        boxes.run()
    assert boxes.rows("total") == []


@pytest.mark.parametrize("projection", [Large, Sorted, Balance])
@pytest.mark.parametrize("change", ["DELETE WHERE _id = 'b'", "DELETE WHERE 1", "added"])
def test_a_table_that_was_changed_by_hand_is_not_written_any_more(
    store: Store, tmp_path: Path, projection: type[Any], change: str
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    for nth in range(6):
        boxes.commit("abc"[nth % 3], Put(100))
    boxes.run(range_commits_max=3)
    boxes.run()
    if change == "added":
        row = "'foreign', 5, '2026-01-01', 1, 0, 'Box'"
        columns = "_id, _version, _at, _number, _partition, _aggregate"
        store.command(f"INSERT INTO {boxes.table.name} ({columns}) VALUES ({row})")
    else:
        store.command(f"ALTER TABLE {boxes.table.name} {change} SETTINGS mutations_sync = 2")
    with pytest.raises(
        StoreUnavailable, match=f"The table of {projection.__name__} does not fit the log.*{projection.__name__}"
    ):
        boxes.loop()
