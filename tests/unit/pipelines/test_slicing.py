"""A slice of history in a scratch table, beside the table that is shown."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

STAGE = """
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.forking import commit_times
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.slicing import Wanted, sliced
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import Meta, SettingsError
from magnetar.schemas.commit import time_of
from examples.flights.flight import Cancelled, Flight, Scheduled
from magnetar import Pipeline
from tests.unit.pipelines.boards import Board1, Planned, Running, by_origin, from_each_origin

ByOrigin, Lasting = by_origin("ByOrigin"), from_each_origin("Lasting")
made = Pipeline("flights", aggregates=[Flight], projections=[Planned, Board1, ByOrigin], partitions=2)
folder, second = Path(sys.argv[1]), timedelta(microseconds=1)
running = Running(folder)
for id in "abcdef":
    running.schedule(id)
running.cancel("b")
times = {}
for place, number, at in commit_times(made, running.log, ["Flight"]):
    times.setdefault(at, place)
at = [time_of(each) for each in sorted(times)]
assert len(at) == 7, at
running.close()

def slice_of(name, since=None, until=None):
    log, store = SqliteLog(folder, SystemClock()), []
    def keep(rows):
        store.append(Store(embedded_dsn(folder)))
        projector = Projector(made, log, store[0], running.settings, clock=SystemClock())
        projector.keep_scratch(rows)
        projector.close()
    try:
        found = sliced(made, log, folder, SystemClock(), name, Wanted(since, until), keep)
        columns = {"Planned": "flight", "Board": "_id, status", "ByOrigin": "origin, flights"}[name]
        rows = sorted(store[0].query(f"SELECT {columns} FROM {found.table}"))
        assert len(rows) == found.rows and not found.refused, found
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]
    finally:
        for each in store:
            each.close()
        log.close()
"""

SLICES = """
assert slice_of("Planned") == list("abcdef")
assert slice_of("Planned", since=at[2]) == list("cdef")                     # the event of that time is in it
assert slice_of("Planned", since=at[2] + second) == list("def")
assert slice_of("Planned", until=at[3]) == list("abcd")                     # and here too
assert slice_of("Planned", until=at[3] - second) == list("abc")
assert slice_of("Planned", since=at[1], until=at[3]) == list("bcd")
assert slice_of("Planned", since=at[3], until=at[3]) == ["d"]
assert slice_of("Planned", since=at[6], until=at[6]) == []                  # a commit that gives no row
assert slice_of("Planned", since=at[6] + second) == []
assert slice_of("Planned", until=at[0] - second) == []
assert slice_of("ByOrigin", since=at[1], until=at[4]) == [("JFK", 4)]
assert slice_of("ByOrigin", since=at[6] + second) == []
assert slice_of("Board", until=at[5]) == [(id, "Scheduled") for id in "abcdef"]
assert ("b", "Cancelled") in slice_of("Board", until=at[6])
assert not [each for each in folder.iterdir() if each.name.startswith("scratch")]
print("done")
"""


def test_a_slice_has_what_lies_between_its_ends_and_at_them(tmp_path: Path) -> None:
    assert "done" in run(STAGE + SLICES, tmp_path)


WHOLE = """
from magnetar.pipelines import scratch
scratch.RANGE_COMMITS_MAX = 2     # so that a slice begins within ranges, at their ends, and behind several
for first, last in ((0, 5), (1, 4), (2, 2), (3, 6), (4, 5)):
    wanted = list("abcdef")[first:last + 1]
    assert slice_of("Planned", since=at[first], until=at[last]) == wanted, (first, last)
print("done")
"""


def test_a_slice_begins_and_ends_anywhere_in_the_ranges_of_the_loop(tmp_path: Path) -> None:
    assert "done" in run(STAGE + WHOLE, tmp_path)


REFUSED = """
folding = Pipeline("flights", aggregates=[Flight], projections=[Board1, Lasting], partitions=2)
for pipeline, name, wanted, said in (
    (made, "Board", Wanted(at[0], None), "in the middle of its history"),
    (folding, "Lasting", Wanted(at[0], at[1]), "in the middle of its history"),
    (made, "Flight", Wanted(None, at[0]), "is an aggregate"),
    (made, "Planned", Wanted(at[1], at[0]), "later than --until"),
    (made, "Nothing", Wanted(None, at[0]), "Nothing"),
):
    log = SqliteLog(folder, SystemClock())
    try:
        sliced(pipeline, log, folder, SystemClock(), name, wanted, lambda rows: 1 / 0)
    except SettingsError as error:
        assert said in error.what and error.cure, error
    else:
        raise AssertionError(name)
    finally:
        log.close()
print("done")
"""


def test_a_fold_has_no_slice_that_begins_in_the_middle_and_a_mirror_none_at_all(tmp_path: Path) -> None:
    assert "done" in run(STAGE + REFUSED, tmp_path)


BESIDE = """
log, store = SqliteLog(folder, SystemClock()), Store(embedded_dsn(folder))
projector = Projector(made, log, store, running.settings, clock=SystemClock())
projector.prepare()
projector.open()
while projector.step():
    pass
shown = sorted(store.query("SELECT * FROM flights.planned"))
columns = store.query("DESCRIBE TABLE flights.planned")
projector.close()
store.close()
log.close()

assert slice_of("Planned", until=at[3]) == list("abcd")
assert slice_of("Planned", since=at[4]) == list("ef")        # in the place of the one before

log, store = SqliteLog(folder, SystemClock()), Store(embedded_dsn(folder))
assert sorted(store.query("SELECT * FROM flights.planned")) == shown and len(shown) == 6
assert [row[:2] for row in store.query("DESCRIBE TABLE flights.planned__scratch")] == [row[:2] for row in columns]
assert store.query("SELECT count() FROM flights.planned ANTI JOIN flights.planned__scratch USING (flight)") == [(4,)]
projector = Projector(made, log, store, running.settings, clock=SystemClock())
projector.prepare()          # it is no generation, and nobody minds it
projector.open()
while projector.step():
    pass
assert len(store.query("SELECT * FROM flights.planned__scratch")) == 2
from magnetar.projections.scratch_rows import ScratchRows
for elsewhere in ("../elsewhere", "scratch-x"):
    try:
        projector.keep_scratch(ScratchRows("planned", elsewhere))
    except SettingsError as error:
        assert "no file" in error.what, error
    else:
        raise AssertionError(elsewhere)
for _ in range(2):
    projector.keep_scratch(ScratchRows("planned"))
assert store.query("EXISTS TABLE flights.planned__scratch") == [(0,)]
assert len(store.query("SELECT * FROM flights.planned")) == 6
print("done")
"""


def test_what_is_shown_stays_as_it_is_and_a_scratch_table_is_replaced_and_dropped(tmp_path: Path) -> None:
    assert "done" in run(STAGE + BESIDE, tmp_path)
