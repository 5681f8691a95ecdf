"""Quarantine: one event that a projection raises on keeps back its key, and nothing else; and comes in later, once."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from magnetar.projections import Fold, Rows
from magnetar.projections.projected_table import ProjectedTable
from magnetar.projections.quarantine import DROP, RETRY, QuarantinedKey, quarantined, wish_statement
from magnetar.projections.store import Store
from magnetar.schemas import LeaseLost, Meta, PartitionRefused

from tests.unit.projections.projected import Boxes, Put, Taken
from tests.unit.projections.test_mirror import Crash, crashing

WRONG: set[int] = set()
"""The amounts that the projections raise on; a test mends them by taking them out."""

_nonces = itertools.count()


def check(amount: int) -> None:
    if amount in WRONG:
        raise ValueError(f"{amount} is wrong")


class Amounts(Rows):
    """Every amount."""

    amount: int

    @classmethod
    def project(cls, event: Put | Taken, meta: Meta) -> Iterator[Self]:
        yield cls(event.amount)
        check(event.amount)


class Sums(Fold):
    """What was put in and taken, in order."""

    history: tuple[int, ...] = ()

    def apply(self, event: Put | Taken) -> Self:
        check(event.amount)
        return self.replace(history=(*self.history, event.amount))


BOTH = pytest.mark.parametrize("projection", [Amounts, Sums])


@pytest.fixture(autouse=True)
def wrong() -> Iterator[None]:
    WRONG.clear()
    WRONG.add(13)
    yield
    WRONG.clear()


def told(boxes: Boxes) -> dict[str, list[int]]:
    """What the view has, by key."""
    if boxes.projection is Sums:
        return {id: list(history) for id, history in boxes.rows("_id, history")}
    found: dict[str, list[int]] = {}
    for id, amount in boxes.rows("_id, amount", "ORDER BY _number, _version"):
        found.setdefault(id, []).append(amount)
    return found


def keys(boxes: Boxes) -> list[QuarantinedKey]:
    return quarantined(boxes.store.rows, boxes.context)


def wish(boxes: Boxes, step: str, id: str = "a", reason: str = "") -> None:
    name = boxes.projection.__name__
    boxes.store.command(
        wish_statement(
            name, f"{boxes.context}/Box", 0, id, nonce=str(next(_nonces)), step=step, reason=reason, actor="me"
        )
    )


def settle(boxes: Boxes, table: ProjectedTable | None = None, **options: Any) -> None:
    """What a projector does between two ranges."""
    table = table or boxes.open(**options)
    loop = boxes.loop(table)
    for wished in table.wishes():
        loop.between_ranges(partial(table.settle, 0, wish=wished))
    while loop.step():
        pass


def filled(store: Store, folder: Path, projection: type[Any], *, range_commits_max: int = 2) -> Boxes:
    """A's second event is wrong, and two come behind it; b has none that is."""
    boxes = Boxes(store, folder, projection)
    for id, amount in (("a", 1), ("b", 2), ("a", 13), ("b", 3), ("a", 4)):
        boxes.commit(id, Put(amount))
    boxes.commit("a", Put(5), Taken(6))
    boxes.run(range_commits_max=range_commits_max)
    return boxes


@BOTH
def test_one_bad_event_keeps_its_key_back_and_the_others_flow(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = filled(store, tmp_path, projection)
    assert told(boxes) == {"a": [1], "b": [2, 3]}
    (key,) = keys(boxes)
    assert key[:5] == (projection.__name__, 1, "Box", "a", 0)
    assert (key.version, key.event, key.error, key.events) == (2, "Put", "ValueError: 13 is wrong", 4)
    assert 0 <= key.age_seconds < 600


@BOTH
def test_a_retry_lets_them_in_in_their_order_once_it_is_mended(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = filled(store, tmp_path, projection)
    WRONG.clear()
    settle(boxes)
    assert told(boxes)["a"] == [1]  # nobody has asked
    wish(boxes, RETRY)
    settle(boxes)
    settle(boxes)
    assert told(boxes) == {"a": [1, 13, 4, 5, 6], "b": [2, 3]}
    assert keys(boxes) == []
    boxes.commit("a", Put(7))
    boxes.run()
    boxes.run()
    assert told(boxes)["a"] == [1, 13, 4, 5, 6, 7]


@BOTH
def test_a_retry_that_is_raised_on_again_lets_in_what_is_before_that(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = filled(store, tmp_path, projection)
    WRONG.clear()
    WRONG.add(5)
    wish(boxes, RETRY)
    settle(boxes)
    assert told(boxes)["a"] == [1, 13, 4]
    (key,) = keys(boxes)
    assert (key.version, key.events) == (4, 2)
    WRONG.clear()
    settle(boxes)
    assert told(boxes)["a"] == [1, 13, 4]  # a wish is tried once
    wish(boxes, RETRY)
    settle(boxes)
    assert told(boxes)["a"] == [1, 13, 4, 5, 6]


@BOTH
def test_a_drop_gives_up_the_one_event_and_is_recorded(store: Store, tmp_path: Path, projection: type[Any]) -> None:
    boxes = filled(store, tmp_path, projection)
    wish(boxes, DROP, reason="typed wrong")
    settle(boxes)
    assert told(boxes)["a"] == [1, 4, 5, 6]
    assert keys(boxes) == []
    recorded = store.query(
        "SELECT version, reason, actor FROM magnetar.quarantine "
        f"WHERE step = 'dropped' AND aggregate = '{boxes.context}/Box'"
    )
    assert [tuple(row) for row in recorded] == [(2, "typed wrong", "me")]


@BOTH
def test_what_was_dropped_does_not_come_in_with_its_range_when_that_is_replayed(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    boxes.commit("a", Put(13))
    boxes.run()
    wish(boxes, DROP, reason="typed wrong")
    settle(boxes)
    WRONG.clear()
    boxes.run()
    boxes.commit("a", Put(1))
    boxes.run()
    assert told(boxes) == {"a": [1]}


@BOTH
@pytest.mark.parametrize("failpoint", ["after_pending", "between_tables", "after_insert"])
def test_a_kill_while_an_event_is_being_kept_back_changes_nothing(
    store: Store, tmp_path: Path, projection: type[Any], failpoint: str
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    for id, amount in (("a", 1), ("b", 2), ("a", 13), ("b", 3), ("a", 4)):
        boxes.commit(id, Put(amount))
    with pytest.raises(Crash):
        boxes.run(failpoint=crashing(failpoint), table=boxes.open(failpoint=crashing(failpoint)))
    if failpoint != "after_pending":
        WRONG.clear()  # what is held stays so, whatever the next code would make of it
    boxes.run()
    assert told(boxes) == {"a": [1], "b": [2, 3]}
    assert [key.events for key in keys(boxes)] == [2]
    WRONG.clear()
    wish(boxes, RETRY)
    settle(boxes)
    assert told(boxes) == {"a": [1, 13, 4], "b": [2, 3]}


@BOTH
@pytest.mark.parametrize(
    ("step", "failpoint"),
    [(RETRY, "after_release"), (RETRY, "after_recount"), (DROP, "after_drop"), (DROP, "after_release")],
)
def test_a_kill_in_the_middle_of_a_release_lets_nothing_in_twice(
    store: Store, tmp_path: Path, projection: type[Any], step: str, failpoint: str
) -> None:
    boxes = filled(store, tmp_path, projection)
    boxes.commit("b", Put(8))
    boxes.run()
    if step == RETRY:
        WRONG.clear()
    wish(boxes, step, reason="why not")
    with pytest.raises(Crash):
        settle(boxes, failpoint=crashing(failpoint))
    boxes.commit("b", Put(9))
    boxes.commit("a", Put(10))
    boxes.run()
    settle(boxes)
    dropped = [] if step == DROP else [13]
    assert told(boxes) == {"a": [1, *dropped, 4, 5, 6, 10], "b": [2, 3, 8, 9]}
    assert keys(boxes) == []


@BOTH
def test_who_has_lost_the_lease_neither_keeps_back_nor_releases(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = filled(store, tmp_path, projection)
    boxes.commit("c", Put(77))
    table = boxes.open()
    old = boxes.loop(table)
    boxes.loop()
    WRONG.clear()
    wish(boxes, RETRY)
    (wished,) = table.wishes()
    with pytest.raises(LeaseLost):
        old.between_ranges(partial(table.settle, 0, wish=wished))
    assert told(boxes)["a"] == [1]
    WRONG.add(77)
    with pytest.raises(LeaseLost):
        old.step()
    assert [key.id for key in keys(boxes)] == ["a"]


@BOTH
def test_too_many_keys_stop_the_partition(store: Store, tmp_path: Path, projection: type[Any]) -> None:
    boxes = Boxes(store, tmp_path, projection)
    boxes.keys_max = 2
    for nth in range(4):
        boxes.commit("abcd"[nth], Put(13 if nth != 1 else 1))
    with pytest.raises(PartitionRefused, match="13 is wrong"):
        boxes.run()
    assert told(boxes) == {}
    assert keys(boxes) == []
    WRONG.clear()
    boxes.run()
    assert told(boxes) == {"a": [13], "b": [1], "c": [13], "d": [13]}


class Unstorable(Fold):
    """Gives a row that no column takes, after some events."""

    amount: int = 0

    def apply(self, event: Put) -> Self:
        return self.replace(amount="much" if event.amount == 13 else event.amount)


def test_a_row_that_cannot_be_stored_keeps_back_the_event_that_made_it(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Unstorable)
    boxes.commit("a", Put(1))
    boxes.commit("a", Put(2), Put(13))
    boxes.commit("b", Put(4))
    boxes.run()
    boxes.commit("a", Put(3))
    boxes.run()
    assert boxes.rows("_id, amount, _version") == [("a", 2, 2), ("b", 4, 1)]
    (key,) = keys(boxes)
    assert (key.id, key.version, key.events) == ("a", 3, 2)


class Misshapen(Rows):
    """Gives something else than a row, after some events."""

    amount: int

    @classmethod
    def project(cls, event: Put) -> Iterator[Self]:
        if event.amount == 13:
            yield {"amount": 13}  # type: ignore[misc]
        yield cls(event.amount)


def test_what_is_no_row_keeps_back_the_event_that_it_was_made_of(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Misshapen)
    boxes.commit("a", Put(1), Put(13))
    boxes.commit("b", Put(4))
    boxes.run()
    assert boxes.rows("_id, amount") == [("a", 1), ("b", 4)]
    (key,) = keys(boxes)
    assert (key.id, key.version) == ("a", 2)
    assert "it gave a dict, and no Misshapen" in key.error
