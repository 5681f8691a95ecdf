"""What a change of projections does to their rows: the shown table beside one that new code fills."""

from pathlib import Path

import pytest

from tests.unit.pipelines.test_rebuild import run

STAGE = """
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.diffing import Wanted, diff
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.projections import Fold, Rows, Sql
from magnetar.schemas import Meta
from examples.flights.flight import Cancelled, Flight, Scheduled
from magnetar import Pipeline
from tests.unit.pipelines.boards import Board1, Board2, Planned, Running, by_origin, from_each_origin, pipeline

folder = Path(sys.argv[1])

def recorded(made=None):
    running = Running(folder)
    running.schedule("a", "b", "c")
    running.cancel("a")
    run_all(made or pipeline(Board1), running)
    return running

def run_all(pipeline, running):
    from magnetar.pipelines.projector import Projector
    projector = Projector(pipeline, running.log, running.store, running.settings, clock=SystemClock())
    projector.prepare()
    projector.open()
    while projector.step():
        pass
    projector.step()
    projector.close()

def tables(made, **wanted):
    log = SqliteLog(folder, SystemClock())
    found = diff(made, log, folder, SystemClock(), Wanted(**wanted))
    log.close()
    return found

def counts(table):
    return (table.before, table.after, table.added, table.removed, table.changed)
"""

SAME = """
recorded().close()
found = tables(pipeline(Board1))
assert found.is_same, found
assert [each.projection for each in found.tables] == ["Planned", "Board"]
assert [counts(each) for each in found.tables] == [(3, 3, 0, 0, 0), (3, 3, 0, 0, 0)]
assert found.aggregates[0].asked == 4
print("done")
"""


def test_the_same_code_makes_the_same_rows(tmp_path: Path) -> None:
    assert "done" in run(STAGE + SAME, tmp_path)


CHANGED = """
recorded().close()
found = tables(pipeline(Board2), names=["Board"])
assert not found.is_same and found.aggregates == []
(board,) = found.tables
assert board.has_changed and board.columns_added == ["origin"] and board.columns_removed == []
assert counts(board) == (3, 2, 0, 1, 2), board
gone, changed, _ = sorted(board.examples, key=lambda each: each["identity"]["_id"])
assert gone == {"identity": {"_id": "a"}, "before": [{"status": "Cancelled"}], "after": []}
assert changed["before"] == [{"status": "Scheduled"}]
assert changed["after"] == [{"status": "planned", "origin": "JFK"}]
assert tables(pipeline(Board2), only_changed=True).tables == [board]

class Planned2(Rows, wire_name="Planned"):
    flight: str

    @classmethod
    def project(cls, event: Scheduled, meta: Meta) -> Iterator[Self]:
        if meta.id != "b":
            yield cls(meta.id)
        if meta.id == "c":
            yield cls("again")

# The declaration is the same, so only a comparison of the rows shows it.
made = Pipeline("flights", aggregates=[Flight], projections=[Planned2, Board1], partitions=2)
planned, board = tables(made).tables
assert board.is_same and not planned.has_changed
assert counts(planned) == (3, 2, 0, 1, 1), planned
assert tables(made, only_changed=True).tables == []

class New(Fold):
    seen: bool = False

    def apply(self, event: Scheduled) -> Self:
        return self.replace(seen=True)

class Raising(Fold, wire_name="Board"):
    status: str = ""

    def apply(self, event: Scheduled | Cancelled) -> Self:
        return self.replace(status={}["missing"])

made = Pipeline("flights", aggregates=[Flight], projections=[New, Raising], partitions=2)
new, raising = tables(made).tables
assert new.is_new and new.after == 3
assert [(each.event, each.error, each.aggregates) for each in raising.refused] == [
    ("Scheduled", "KeyError: 'missing'", 3)
]
print("done")
"""


def test_rows_that_were_added_removed_and_changed_are_counted_and_shown(tmp_path: Path) -> None:
    assert "done" in run(STAGE + CHANGED, tmp_path)


UNSTEADY = """
import itertools
recorded().close()
dice = itertools.count()

class Dicing(Rows, wire_name="Planned"):
    flight: str

    @classmethod
    def project(cls, event: Scheduled, meta: Meta) -> Iterator[Self]:
        yield cls(f"{meta.id} {next(dice)}" if meta.id != "a" else "a")

made = Pipeline("flights", aggregates=[Flight], projections=[Dicing, Board2], partitions=2)
planned, board = tables(made).tables
assert not planned.is_same and planned.unsteady == 2, planned
assert not board.is_same and board.unsteady == 0, board
from magnetar.pipelines.cli.diffing import _say_table
_say_table(planned)
print("done")
"""


def test_a_projection_that_comes_out_otherwise_each_time_is_named(tmp_path: Path) -> None:
    said = run(STAGE + UNSTEADY, tmp_path)
    assert "Planned is not deterministic: filled twice by the same code, from the same events, 2 rows" in said
    assert "raise `revision`" not in said


ONE = """
running = Running(folder)
running.schedule("a")
run_all(pipeline(Board1), running)
running.close()
found = tables(pipeline(Board1))
assert found.is_same, found
assert [counts(each) for each in found.tables] == [(1, 1, 0, 0, 0), (1, 1, 0, 0, 0)]
print("done")
"""


def test_a_claim_is_no_commit(tmp_path: Path) -> None:
    assert "done" in run(STAGE + ONE, tmp_path)


MEANWHILE = """
running = recorded()
running.schedule("d", "e")
running.cancel("b")
running.close()
# The tables are as they were: what has come since is on neither side.
found = tables(pipeline(Board1))
assert found.is_same, found
assert counts(found.tables[0]) == (3, 3, 0, 0, 0)

running = Running(folder)
run_all(pipeline(Board1), running)
running.close()
# A sample: what the tables have of later commits is not compared.
planned, board = tables(pipeline(Board2), names=["Planned", "Board"], sample=4).tables
assert planned.is_same and 0 < planned.before < 5, planned
assert board.before + board.not_compared, board
print("done")
"""


def test_what_is_behind_the_tables_or_the_sample_is_on_neither_side(tmp_path: Path) -> None:
    assert "done" in run(STAGE + MEANWHILE, tmp_path)


SUMS = """
class ByOrigin(Sql):
    incremental = True
    select = "SELECT origin, count() AS flights, avg(1.5) AS mean FROM Scheduled GROUP BY origin"
    origin: str
    flights: int
    mean: float

class Halved(Sql, wire_name="ByOrigin"):
    incremental = True
    select = "SELECT origin, intDiv(count(), 2) AS flights, avg(1.5) AS mean FROM Scheduled GROUP BY origin"
    origin: str
    flights: int
    mean: float

def made(sql):
    return Pipeline("flights", aggregates=[Flight], projections=[sql], partitions=2)

recorded(made(ByOrigin)).close()
assert tables(made(ByOrigin)).is_same
(halved,) = tables(made(Halved)).tables
assert counts(halved) == (1, 1, 0, 0, 1), halved
assert halved.examples[0]["identity"] == {"origin": "JFK"}
assert halved.examples[0]["before"][0]["flights"] == 3 and halved.examples[0]["after"][0]["flights"] == 1
assert "without --sample" in tables(made(Halved), sample=4).tables[0].left_out
print("done")
"""


def test_the_groups_of_an_incremental_sql_are_compared(tmp_path: Path) -> None:
    assert "done" in run(STAGE + SUMS, tmp_path)


TOLD_APART = """
class BySky(Rows, wire_name="Board"):
    flight: str

    @classmethod
    def project(cls, event: Scheduled) -> Iterator[Self]:
        yield cls(event.origin)

class ByBoth(Sql, wire_name="Planned"):
    incremental = True
    select = "SELECT origin, dest, count() AS flights FROM Scheduled GROUP BY origin, dest"
    origin: str
    dest: str
    flights: int

Ahead, ByOrigin = from_each_origin("Board"), by_origin("Planned")

def made(*projections):
    return Pipeline("flights", aggregates=[Flight], projections=projections, partitions=2)

def found_of(before, after):
    from shutil import rmtree
    rmtree(folder)
    folder.mkdir()
    recorded(made(before)).close()
    found = tables(made(after))
    (table,) = found.tables
    assert "its rows are told apart by other columns" in table.left_out, table
    return table.has_changed and not found.is_same and (table.before, table.after, table.added)

kinds = [(Board1, BySky), (BySky, Board1), (Board1, Ahead), (Ahead, Board1), (ByOrigin, ByBoth)]
before, after = kinds[int(sys.argv[2])]
print("done", found_of(before, after))
"""


@pytest.mark.parametrize(
    ("nth", "rows"),
    [*enumerate(["(3, 3, 0)", "(3, 3, 0)", "(3, 2, 0)", "(1, 3, 0)", "(1, 1, 0)"])],
)
def test_rows_that_are_told_apart_otherwise_are_a_difference_and_not_compared(
    tmp_path: Path, nth: int, rows: str
) -> None:
    assert f"done {rows}" in run(STAGE + TOLD_APART, tmp_path, str(nth))


FORK = """
from datetime import UTC, datetime
from magnetar.pipelines.forking import Fork, forked, load_projection
from magnetar.schemas import SettingsError

running = Running(folder)
running.schedule("a", "b")
then = datetime.now(UTC)
running.schedule("c")
running.cancel("a")
running.close()

def fork(*wanted):
    log = SqliteLog(folder, SystemClock())
    try:
        return forked(pipeline(Board1), log, SystemClock(), Fork(*wanted), examples=3)
    finally:
        log.close()

# As of then, beside now; no projector has ever run.
found = fork("Board", then, None)
assert counts(found) == (2, 3, 1, 0, 1), found
changed = next(each for each in found.examples if each["identity"] == {"_id": "a"})
assert (changed["before"], changed["after"]) == ([{"status": "Scheduled"}], [{"status": "Cancelled"}])

# By other code, both as of then, and both as of now.
other = load_projection("tests.unit.pipelines.boards:Board2")
found = fork("Board", then, other)
assert counts(found) == (2, 2, 0, 0, 2) and found.columns_added == ["origin"], found
assert counts(fork("Board", None, other)) == (3, 2, 0, 1, 2)
assert fork("Board", None, Board1).is_same

for name, other in (("Flight", None), ("Planned", Board1), ("Nothing", None)):
    try:
        fork(name, then, other)
    except SettingsError as error:
        continue
    raise AssertionError(name)
print("done")
"""


def test_a_fork_is_of_another_time_or_of_other_code(tmp_path: Path) -> None:
    assert "done" in run(STAGE + FORK, tmp_path)
