"""Quarantine of a fold by field: what is kept back are the events of the same value, of whichever aggregate."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from magnetar.projections import Fold, Window
from magnetar.projections.projected_table import ProjectedTable
from magnetar.projections.quarantine import DROP, RETRY, quarantined, wish_statement
from magnetar.projections.store import Store
from magnetar.schemas import Event, LeaseLost, PartitionRefused

from tests.unit.projections.projected import Boxes
from tests.unit.projections.test_mirror import Crash, crashing
from tests.unit.projections.test_quarantine import WRONG, check
from tests.unit.projections.test_windows import HOUR, START, Passed

_nonces = itertools.count()


class Gates(Fold):
    """Of each gate. Of powers of two, the sum says which were counted, and how often."""

    by = ("gate",)
    merges: ClassVar = {"people": sum}
    gate: str = ""
    people: int = 0

    def apply(self, event: Passed) -> Self:
        check(event.people)
        return self.replace(people=self.people + event.people)


class Hourly(Fold):
    """The same by hour."""

    window = Window(2 * HOUR, every=HOUR, at="at")
    by = ("gate",)
    merges: ClassVar = {"people": sum}
    gate: str = ""
    people: int = 0

    def apply(self, event: Passed) -> Self:
        check(event.people)
        return self.replace(people=self.people + event.people)


BOTH = pytest.mark.parametrize("projection", [Gates, Hourly])


@pytest.fixture(autouse=True)
def wrong() -> Iterator[None]:
    WRONG.clear()
    WRONG.add(8)
    yield
    WRONG.clear()


class Doors(Boxes):
    """Boxes that people pass."""

    events: ClassVar[list[type[Event]]] = [Passed]


def passed(gate: str, people: int) -> Passed:
    """Each time some minutes later, so that they are in several windows."""
    return Passed(gate, START + people.bit_length() * timedelta(minutes=25), people)


def told(doors: Doors) -> dict[str, int]:
    """What is counted of each gate: of a hopping window, each event is in two."""
    share = 1 if doors.projection is Gates else 2
    rows = doors.rows("gate, sum(people)", "GROUP BY gate")
    assert all(people % share == 0 for _, people in rows)
    return {gate: people // share for gate, people in rows}


def wish(doors: Doors, step: str, reason: str = "") -> None:
    name, of = doors.projection.__name__, f"{doors.context}/Box"
    doors.store.command(
        wish_statement(name, of, 0, '["A"]', nonce=f"keyed{next(_nonces)}", step=step, reason=reason, actor="me")
    )


def settle(doors: Doors, table: ProjectedTable | None = None, **options: Any) -> None:
    table = table or doors.open(**options)
    loop = doors.loop(table)
    for wished in table.wishes():
        loop.between_ranges(partial(table.settle, 0, wish=wished))
    while loop.step():
        pass


def commit(doors: Doors) -> None:
    """At gate A the third is wrong, in the middle of a commit, and others of two boxes come behind it."""
    doors.commit("x", passed("A", 1))
    doors.commit("y", passed("B", 2), passed("A", 4))
    doors.commit("x", passed("B", 4), passed("A", 8), passed("A", 16), passed("B", 8 * 1024))
    doors.commit("y", passed("A", 32))
    doors.commit("x", passed("B", 64), passed("A", 128))


def filled(store: Store, folder: Path, projection: type[Any]) -> Doors:
    doors = Doors(store, folder, projection)
    commit(doors)
    doors.run(range_commits_max=2)
    return doors


@BOTH
def test_the_events_of_the_same_value_are_kept_back_and_let_in_in_their_order(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    doors = filled(store, tmp_path, projection)
    assert told(doors) == {"A": 5, "B": 2 + 4 + 64 + 8192}
    (key,) = quarantined(store.rows, doors.context)
    assert (key.id, key.version, key.events, key.error) == ('["A"]', 3, 4, "ValueError: 8 is wrong")
    wish(doors, RETRY)
    settle(doors)
    assert told(doors)["A"] == 5  # it is raised on again
    WRONG.clear()
    WRONG.add(32)
    wish(doors, RETRY)
    settle(doors)
    assert told(doors)["A"] == 5 + 8 + 16
    (key,) = quarantined(store.rows, doors.context)
    assert (key.version, key.events) == (3, 2)
    WRONG.clear()
    wish(doors, RETRY)
    settle(doors)
    settle(doors)
    doors.commit("y", passed("A", 256))
    doors.run()
    doors.run()
    assert told(doors) == {"A": 5 + 8 + 16 + 32 + 128 + 256, "B": 2 + 4 + 64 + 8192}
    assert quarantined(store.rows, doors.context) == []


@BOTH
def test_a_drop_gives_up_the_one_event(store: Store, tmp_path: Path, projection: type[Any]) -> None:
    doors = filled(store, tmp_path, projection)
    wish(doors, DROP, "counted twice")
    settle(doors)
    doors.run()
    assert told(doors)["A"] == 5 + 16 + 32 + 128
    assert quarantined(store.rows, doors.context) == []


@BOTH
@pytest.mark.parametrize("failpoint", ["after_pending", "between_tables", "after_insert"])
def test_a_kill_while_an_event_is_being_kept_back_changes_nothing(
    store: Store, tmp_path: Path, projection: type[Any], failpoint: str
) -> None:
    doors = Doors(store, tmp_path, projection)
    commit(doors)
    with pytest.raises(Crash):
        doors.run(failpoint=crashing(failpoint), table=doors.open(failpoint=crashing(failpoint)))
    if failpoint != "after_pending":
        WRONG.clear()  # what is held stays so, whatever the next code would make of it
    doors.run()
    assert told(doors) == {"A": 5, "B": 2 + 4 + 64 + 8192}
    WRONG.clear()
    wish(doors, RETRY)
    settle(doors)
    assert told(doors)["A"] == 5 + 8 + 16 + 32 + 128


@BOTH
@pytest.mark.parametrize(
    ("step", "failpoint"),
    [(RETRY, "after_release"), (RETRY, "after_recount"), (DROP, "after_drop"), (DROP, "after_release")],
)
def test_a_kill_in_the_middle_of_a_release_lets_nothing_in_twice(
    store: Store, tmp_path: Path, projection: type[Any], step: str, failpoint: str
) -> None:
    doors = filled(store, tmp_path, projection)
    if step == RETRY:
        WRONG.clear()
    wish(doors, step, "why not")
    with pytest.raises(Crash):
        settle(doors, failpoint=crashing(failpoint))
    doors.commit("y", passed("B", 512), passed("A", 256))
    doors.run()
    settle(doors)
    assert told(doors) == {"A": 5 + (8 if step == RETRY else 0) + 16 + 32 + 128 + 256, "B": 2 + 4 + 64 + 512 + 8192}
    assert quarantined(store.rows, doors.context) == []


def test_who_has_lost_the_lease_does_not_release(store: Store, tmp_path: Path) -> None:
    doors = filled(store, tmp_path, Gates)
    table = doors.open()
    old = doors.loop(table)
    doors.loop()
    WRONG.clear()
    wish(doors, RETRY)
    (wished,) = table.wishes()
    with pytest.raises(LeaseLost):
        old.between_ranges(partial(table.settle, 0, wish=wished))
    assert told(doors)["A"] == 5


def test_too_many_keys_stop_the_partition(store: Store, tmp_path: Path) -> None:
    doors = Doors(store, tmp_path, Gates)
    doors.keys_max = 1
    doors.commit("x", passed("A", 8), passed("B", 8))
    with pytest.raises(PartitionRefused, match="8 is wrong"):
        doors.run()
    assert told(doors) == {}
    assert quarantined(store.rows, doors.context) == []
