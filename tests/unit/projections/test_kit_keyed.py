"""The test kit for folds by window or by field: the rows that the table's view has of the same events."""

from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self

import pytest
from magnetar.projections import Fold, Window
from magnetar.projections.store import Store

from magnetar.testing import FoldedRow, Occurred, project
from tests.unit.projections.projected import Balance, Put
from tests.unit.projections.test_windows import HOUR, START, ByHour, Doors, Gates, Hopping, Passed

RANDOM = Random(1)


def passed(id: str, hours: float, people: int, gate: str = "A") -> Occurred:
    return Occurred(Passed(gate, START + hours * HOUR, people), id=id)


def test_each_window_has_a_row_and_what_comes_late_is_counted() -> None:
    events = [passed("a", 0.1, 1), passed("b", 1.5, 2), passed("a", 0.5, 4)]
    assert project(ByHour, events=events) == (
        FoldedRow(ByHour(5), "a", START, 1),
        FoldedRow(ByHour(2), "b", START + HOUR, 0),
    )


def test_rows_by_a_field_are_merged_and_what_is_deleted_is_not_there() -> None:
    assert project(Gates, events=[passed("a", 0, 1), passed("b", 0, 2), passed("b", 0, 4, "B")]) == (
        FoldedRow(Gates("A", 3, 2), None, START, 0),
        FoldedRow(Gates("B", 4, 4), None, START, 0),
    )
    assert project(ByHour, events=[passed("a", 0, 1), passed("a", 0, -1)]) == ()
    assert project(ByHour, events=list[Occurred]()) == ()


@pytest.mark.parametrize("projection", [ByHour, Hopping, Gates])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_view_has_of_one_partition(
    store: Store, tmp_path: Path, projection: type[Any], seed: int
) -> None:
    random, doors, events = Random(seed), Doors(store, tmp_path, projection), list[Occurred]()
    for nth in range(40):
        hours = nth / 10 + random.uniform(-3, 1)
        people = random.randint(-1 if projection is ByHour else 0, 9)
        events.append(passed(random.choice("abc"), hours, people, random.choice("XY")))
        doors.commit(events[-1].id, events[-1].event)
    doors.run(range_commits_max=7)
    found: list[FoldedRow[Any]] = list(project(projection, events=events))
    if projection is Gates:
        rows = [
            (*(getattr(each.row, name) for name in ("gate", "people", "most")), hours_of(each), each.late)
            for each in found
        ]
        assert sorted(rows) == doors.told("gate, people, most")
    else:
        assert sorted((each.id, each.row.people, hours_of(each), each.late) for each in found) == doors.told(
            "_id, people"
        )
    assert sum(each.late for each in found) > 0


def hours_of(row: FoldedRow[Any]) -> int | None:
    """Which hour its window begins in, if it has one."""
    return (row.window - START) // HOUR if row.window else None


class Latest(Fold):
    """It keeps what came last, and says that the greatest is wanted."""

    by = ("gate",)
    merges: ClassVar = {"people": max}
    gate: str = ""
    people: int = 0

    def apply(self, event: Passed) -> Self:
        return self.replace(people=event.people)


class Rolled(Fold):
    by = ("gate",)
    merges: ClassVar = {"share": sum}
    gate: str = ""
    share: float = 0.0

    def apply(self, event: Passed) -> Self:
        return self.replace(share=RANDOM.random())


class Shares(Fold):
    by = ("gate",)
    merges: ClassVar = {"share": sum}
    gate: str = ""
    share: float = 0.0

    def apply(self, event: Passed) -> Self:
        return self.replace(share=self.share + 0.1 * event.people)


def test_merges_that_do_not_fit_are_found() -> None:
    assert project(Latest, events=[passed("a", 0, 1), passed("b", 0, 2)])[0].row.people == 2
    with pytest.raises(AssertionError, match="Its `merges` does not fit what `apply` does"):
        project(Latest, events=[passed("a", 0, 2), passed("b", 0, 1)])
    rows = project(Shares, events=[passed(id, 0, n) for n, id in enumerate("abcabcacb")])
    assert rows[0].row.share == pytest.approx(3.6)


def test_what_is_not_pure_is_found() -> None:
    with pytest.raises(AssertionError, match="It has to be pure"):
        project(Rolled, events=[passed("a", 0, 1)])


def test_events_are_given_as_the_projection_wants_them() -> None:
    plain: Any = [Passed("A", START, 1)]
    with pytest.raises(AssertionError, match=r"say of each event which, with Occurred\(event, id=…, at=…\)"):
        project(Gates, events=plain)
    with pytest.raises(AssertionError, match="give its events as they are, and its id"):
        project(Balance, events=[Occurred(Put(1))])
    with pytest.raises(AssertionError, match="does not take"):
        project(Gates, events=[Occurred(Put(1))])


def test_the_time_of_the_command_counts_where_no_field_is_named() -> None:
    class Daily(Fold):
        window = Window(HOUR)
        people: int = 0

        def apply(self, event: Passed) -> Self:
            return self.replace(people=self.people + event.people)

    at = START + 30 * HOUR
    assert project(Daily, events=[Occurred(Passed("A", START, 3), "a", at)]) == (
        FoldedRow(Daily(3), "a", START + 30 * HOUR, 0),
    )
