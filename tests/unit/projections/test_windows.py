"""Folds by window of event time, and by fields of their events."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self

import pytest
from magnetar.projections import Fold, Window, fold_table
from magnetar.projections.store import Store
from magnetar.schemas import DeclarationError, Event

from tests.unit.projections.projected import Boxes
from tests.unit.projections.test_mirror import Crash, crashing

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Passed(Event):
    gate: str
    at: datetime
    people: int


class ByHour(Fold):
    """Of each box, by hour."""

    window = Window(HOUR, at="at")
    people: int = 0

    def apply(self, event: Passed) -> Self | None:
        return None if event.people < 0 else self.replace(people=self.people + event.people)


class Hopping(Fold):
    """Of each box, in two hours, each hour."""

    window = Window(2 * HOUR, every=HOUR, at="at")
    people: int = 0

    def apply(self, event: Passed) -> Self:
        return self.replace(people=self.people + event.people)


class Gates(Fold):
    """Of each gate, by hour."""

    window = Window(HOUR, at="at", grace=HOUR)
    by = ("gate",)
    merges: ClassVar = {"people": sum, "most": max}
    gate: str = ""
    people: int = 0
    most: int = 0

    def apply(self, event: Passed) -> Self:
        return self.replace(people=self.people + event.people, most=max(self.most, event.people))


class Doors(Boxes):
    """Boxes that people pass."""

    events: ClassVar[list[type[Event]]] = [Passed]

    def passed(self, id: str, hours: float, people: int, gate: str = "A") -> None:
        self.commit(id, Passed(gate, START + hours * HOUR, people))

    def told(self, columns: str) -> list[tuple[Any, ...]]:
        return [
            tuple(row)
            for row in self.rows(f"{columns}, dateDiff('hour', {self.start}, _window), _late", "ORDER BY ALL")
        ]

    start = "toDateTime64('2026-01-01 00:00:00', 3, 'UTC')"


def test_each_aggregate_has_a_row_for_each_window_and_what_is_late_is_counted_and_kept(
    store: Store, tmp_path: Path
) -> None:
    doors = Doors(store, tmp_path, ByHour)
    for id, hours, people in (("a", 0.1, 1), ("a", 0.9, 2), ("b", 1.0, 4), ("a", 0.5, 8), ("a", 3, 16), ("b", 1.9, 32)):
        doors.passed(id, hours, people)
    doors.run(range_commits_max=2)
    assert doors.told("_id, people") == [("a", 11, 0, 1), ("a", 16, 3, 0), ("b", 36, 1, 1)]
    doors.passed("a", 3.5, -1)
    doors.passed("a", 0.5, 64)
    doors.run()
    assert doors.told("_id, people") == [("a", 75, 0, 2), ("b", 36, 1, 1)]


def test_a_hopping_window_takes_each_event_several_times(store: Store, tmp_path: Path) -> None:
    doors = Doors(store, tmp_path, Hopping)
    doors.passed("a", 1.5, 1)
    doors.passed("a", 2.0, 2)
    doors.run()
    assert doors.told("_id, people") == [("a", 1, 0, 0), ("a", 2, 2, 0), ("a", 3, 1, 0)]


def test_rows_by_a_field_are_merged_over_the_partitions(store: Store, tmp_path: Path) -> None:
    doors = Doors(store, tmp_path, Gates)
    doors.passed("a", 0.5, 3, "A")
    doors.passed("b", 0.7, 4, "A")
    doors.passed("b", 1.7, 5, "B")
    doors.run(range_commits_max=2)
    loop = doors.loop(partition=1)  # the same log again, as another partition's
    while loop.step():
        pass
    assert doors.told("gate, people, most") == [("A", 14, 4, 0, 0), ("B", 10, 5, 1, 0)]


@pytest.mark.parametrize("projection", [ByHour, Hopping, Gates])
@pytest.mark.parametrize("seed", range(2))
def test_ranges_and_crashes_make_no_difference(
    store: Store, tmp_path: Path, projection: type[Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_table, "STATES_BYTES_MAX", 8 * 300)
    random = Random(seed)
    told = []
    for commits_max in (2, 7, 1000):
        doors = Doors(store, tmp_path, projection)
        random.seed(seed)
        for nth in range(60):
            doors.passed(
                random.choice("abcde"), nth / 10 + random.uniform(-3, 1), random.randint(0, 9), random.choice("XY")
            )
            if nth % 20 == 19:
                with pytest.raises(Crash):
                    doors.run(
                        range_commits_max=commits_max,
                        failpoint=crashing(random.choice(["after_pending", "after_insert"])),
                    )
        doors.run(range_commits_max=commits_max)
        told.append(doors.told("gate, people, most" if projection is Gates else "_id, people"))
    assert told[0] == told[1] == told[2]
    assert sum(row[-1] for row in told[0]) > 0


def test_windows_begin_at_whole_multiples_and_cover_their_size() -> None:
    tumbling, hopping = Window(HOUR), Window(timedelta(minutes=90), every=HOUR)
    at_us = 10 * 3_600_000_000 + 1
    assert [*tumbling.starts_us(at_us)] == [10 * 3_600_000_000]
    assert [*tumbling.starts_us(at_us - 1)] == [10 * 3_600_000_000]
    assert [*tumbling.starts_us(-1)] == [-3_600_000_000]
    assert [*hopping.starts_us(at_us)] == [9 * 3_600_000_000, 10 * 3_600_000_000]
    assert [*hopping.starts_us(at_us + 1_800_000_000)] == [10 * 3_600_000_000]


def declared(**said: Any) -> Any:
    def apply(self: Any, event: Passed) -> Any:
        return self

    apply.__annotations__ = {"event": Passed, "return": Self}
    fields = {"gate": str, "people": int}
    meta: Any = type(Fold)
    return meta(
        "Declared",
        (Fold,),
        {"__annotations__": fields, "gate": "", "people": 0, "apply": apply, "__module__": __name__, **said},
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"window": HOUR}, "window is datetime.timedelta"),
        ({"window": Window(HOUR, every=2 * HOUR)}, "not longer than the size"),
        ({"window": Window(timedelta())}, "window is"),
        ({"window": Window(timedelta(microseconds=1500))}, "every 1500 microseconds"),
        ({"window": Window(timedelta(days=365), every=timedelta(seconds=1))}, "31,536,000 rows"),
        ({"window": Window(HOUR, at="people")}, "has no such time"),
        ({"by": "gate"}, "tuple of names"),
        ({"by": ("door",)}, "has no field of"),
        ({"by": ("gate",)}, "how for 'people'"),
        ({"by": ("gate",), "merges": {"people": len}}, "merges has len for 'people', which ClickHouse cannot merge"),
        ({"by": ("gate",), "merges": {"people": []}}, "merges has .* for 'people', which ClickHouse cannot merge"),
        ({"by": ("gate",), "merges": {"people": sum, "more": sum}}, "has 'more', which is no field of it.*: people"),
        (
            {"by": ("gate",), "merges": {"people": sum, "gate": max}},
            "has 'gate', which is what its rows are told",
        ),
        ({"by": ("people",), "merges": {"gate": sum}}, "has sum for 'gate', which is str, and no number.*min or max"),
        ({"merges": {"people": sum}}, "what it is by"),
    ],
)
def test_a_key_that_cannot_be_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(DeclarationError, match=why):
        declared(**said)


def test_a_key_is_part_of_the_fingerprint() -> None:
    from magnetar.projections.contracts import contract_of

    plain, hourly = declared(), declared(window=Window(HOUR))
    by = declared(by=("gate",), merges={"people": sum})
    assert len({contract_of(each).fingerprint(1) for each in (plain, hourly, by)}) == 3
