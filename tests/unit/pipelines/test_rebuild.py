"""Generations of tables, filled and swapped by a projector over a real log and a real engine."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate
from magnetar.pipelines import Pipeline
from magnetar.pipelines.rebuild import SWAP_COMMITS_MAX, catch_up, commits_behind
from magnetar.pipelines.wishes import Wish
from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Generations
from magnetar.projections.leased_table import Table
from magnetar.schemas import Command, Event, Immutable, Rejection, SettingsError

ROOT = Path(__file__).resolve().parents[3]


def started(script: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, since an engine is one per process, until it has ended."""
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{script}", str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def run(script: str, folder: Path, *more: str) -> str:
    """The same, which has to come to its end; returns what it printed."""
    ran = started(script, folder, *more)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


REBUILD = """
from pathlib import Path
from magnetar.pipelines import projector as module
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.rebuild_status import generations_of, statuses
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections.store import Store, embedded_dsn
from tests.unit.pipelines.counting_rig import Rig, tallies

rig = Rig(Path(sys.argv[1]) / "data")
store = Store(embedded_dsn(rig.folder))

def opened():
    projector = Projector(tallies, rig.log, store, Settings(data=rig.folder), clock=rig.clock)
    projector.prepare()
    projector.open()
    return projector

def known():
    return generations_of(store.rows, tallies, "Tally")

def carry_out():
    while known().wanted is not None or projector.step():
        projector.step()

def rows(table):
    return sorted(store.query(f"SELECT number, version, `Added.total` FROM tallies.{table}"))

rig.send(1, 2, 3)
projector = opened()
carry_out()
projector.wish(Wish.REBUILD, ["Tally"])
rig.send(4, 5)                              # while it is rebuilt
carry_out()
assert known()[:3] == ((1, 2), 2, 1), known()
assert len(rows("tally__events")) == 5 and rows("tally__events__g1") == rows("tally__events__g2")

rig.send(6)                                 # the old one is fed on
carry_out()
assert len(rows("tally__events__g1")) == 6
projector.wish(Wish.ROLLBACK, ["Tally"])
carry_out()
assert known().shown == 1
assert [(s.generation, s.state, s.commits) for s in statuses(store.rows, tallies, ["Tally"])] == [
    (1, "shown", 6), (2, "kept", 6)]

projector.close()                           # what is wished, another projector carries out
projector.wish(Wish.REBUILD, ["Tally"])
projector = opened()
carry_out()
assert known()[:3] == ((1, 3), 3, 1), known()
projector.wish(Wish.DROP_OLD, ["Tally"])
projector.step()
names = [name for (name,) in store.query("SELECT name FROM system.tables WHERE name LIKE 'tally%' ORDER BY name")]
assert names == ["tally__commits", "tally__commits__g3", "tally__events", "tally__events__g3"], names
commits_behind, module.commits_behind = module.commits_behind, lambda *_: 1_000_000
projector.wish(Wish.REBUILD, ["Tally"])     # given up
rig.send(7)
for _ in range(5):
    projector.step()
projector.wish(Wish.CANCEL, ["Tally"])
module.commits_behind = commits_behind
carry_out()
assert known()[:2] == ((3,), 3), known()
assert not store.query("SELECT name FROM system.tables WHERE name LIKE '%__g4'")
assert len(rows("tally__events")) == 7
projector.close()
store.close()
rig.close()
"""


def test_a_generation_is_filled_swapped_fed_on_rolled_back_and_dropped(tmp_path: Path) -> None:
    run(REBUILD, tmp_path)


KILLED_WHILE_DROPPING = """
import os, signal
from pathlib import Path
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections.store import Store, embedded_dsn
from tests.unit.pipelines.counting_rig import Rig, tallies

folder, failpoint, step = Path(sys.argv[1]) / "data", sys.argv[2], sys.argv[3]
rig, store = Rig(folder), Store(embedded_dsn(folder))

def killed(name):
    if name == failpoint:
        os.kill(os.getpid(), signal.SIGKILL)

def projector():
    return Projector(tallies, rig.log, store, Settings(data=folder), clock=rig.clock, failpoint=killed)

def known():
    return generations_of(store.rows, tallies, "Tally")

def rebuild(running):
    running.wish(Wish.REBUILD, ["Tally"])
    while known().wanted is not None or running.step():
        running.step()

def tables(generation):
    return len(store.query(f"SELECT name FROM system.tables WHERE name LIKE '%__g{generation}'"))

def events():
    return store.query("SELECT count() FROM tallies.tally__events")[0][0]

if step == "drop":
    rig.send(1, 2, 3)
    running = projector()
    running.prepare()
    running.open()
    while running.step():
        pass
    rebuild(running)
    assert (known().shown, tables(1), tables(2), events()) == (2, 2, 2, 3)
    running.wish(Wish.DROP_OLD, ["Tally"])
    running.step()
    raise AssertionError("it goes on")

failpoint = None
assert (known().fed, known().before, tables(1)) == ((2,), None, 1 if sys.argv[2] == "between_drops" else 2)
drop, Projector._drop_tables = Projector._drop_tables, lambda *_: None
projector().prepare()                       # without the protection, they stay for ever
assert tables(1) > 0
Projector._drop_tables = drop
running = projector()
running.prepare()
assert (tables(1), tables(2), events()) == (0, 2, 3)
running.open()
rig.send(4)
rebuild(running)
assert (known()[:3], tables(2), tables(3), events()) == (((2, 3), 3, 2), 2, 2, 4), known()
running.close()
store.close()
rig.close()
"""


@pytest.mark.parametrize("failpoint", ["drop_recorded", "between_drops"])
def test_a_kill_while_old_tables_are_dropped_loses_nothing_and_leaves_nothing(tmp_path: Path, failpoint: str) -> None:
    killed = started(KILLED_WHILE_DROPPING, tmp_path, failpoint, "drop")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    run(KILLED_WHILE_DROPPING, tmp_path, failpoint, "again")


class Sell(Command):
    amount: int


class Refused(Rejection): ...


class Price1(Immutable, wire_name="Price"):
    amount: int


class Sold1(Event, wire_name="Sold"):
    price: Price1


class Price2(Immutable, wire_name="Price"):
    amount: int
    currency: str = "EUR"


class Sold2(Event, wire_name="Sold"):
    price: Price2


class Shop1(Aggregate, wire_name="Shop"):
    sold: int = 0

    def execute(self, command: Sell) -> Sold1 | Refused:
        return Sold1(Price1(command.amount))

    def apply(self, event: Sold1) -> Self:
        return self.replace(sold=self.sold + 1)


class Shop2(Aggregate, wire_name="Shop"):
    sold: int = 0

    def execute(self, command: Sell) -> Sold2 | Refused:
        return Sold2(Price2(command.amount, "USD"))

    def apply(self, event: Sold2) -> Self:
        return self.replace(sold=self.sold + 1)


def pipeline(release: int) -> Pipeline:
    """The shop of a release."""
    return Pipeline("shop", aggregates=[Shop1 if release == 1 else Shop2], partitions=2)


OUTGROWN = """
from pathlib import Path
from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import workers_of
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import SettingsError, StoreUnavailable
from tests.unit.pipelines.test_rebuild import Sell, pipeline

settings, clock = Settings(data=Path(sys.argv[1])), SystemClock()
log, store = SqliteLog(settings.data, clock), Store(embedded_dsn(settings.data))

old, new = pipeline(1), pipeline(2)
provision(old, log)
(worker,) = workers_of(old, log, name="w", clock=clock)
with SyncClient(old, settings=settings) as client:
    client.send(old.aggregates["Shop"], "a", Sell(1))
projector = Projector(old, log, store, settings, clock=clock)
projector.prepare()
projector.open()
while not store.query("SELECT count() FROM shop.Sold")[0][0]:
    worker.step(timeout_seconds=0.1)
    projector.step()
worker.close()
projector.close()

provision(new, log)
try:
    Projector(new, log, store, settings, clock=clock).prepare()
except StoreUnavailable as error:
    print(error)
projector = Projector(new, log, store, settings, clock=clock)
projector.wish(Wish.REBUILD, ["Shop"])
projector.prepare()
assert store.query("SELECT price.amount FROM shop.Sold") == [(1,)]
projector.open()
while generations_of(store.rows, new, "Shop").shown != 2:
    projector.step()
assert store.query("SELECT price.amount, price.currency FROM shop.Sold") == [(1, "EUR")]
try:
    projector.wish(Wish.ROLLBACK, ["Shop"])
except SettingsError as error:
    print(error)
projector.close()
store.close()
log.close()
"""


def test_what_has_outgrown_its_tables_is_shown_from_new_ones(tmp_path: Path) -> None:
    printed = run(OUTGROWN, tmp_path)
    assert "default of its new field currency. Run `magnetar rebuild`" in printed
    assert "Generation 1 of Shop was filled by other code" in printed


class Shown:
    """A generation that is shown, as far as a swap looks at it."""

    def __init__(self, numbers: Mapping[int, int]) -> None:
        self._numbers = dict(numbers)

    def last_numbers(self) -> dict[int, int]:
        return self._numbers


class Wanted:
    """A generation that takes in so many commits at each step, on the partitions that are open."""

    def __init__(self, numbers: Mapping[int, int], *, step: int = 0) -> None:
        self._numbers = dict(numbers)
        self._step = step

    def numbers(self, _: Table) -> dict[int, int]:
        return dict(self._numbers)

    def step_table(self, _: Table) -> int:
        self._numbers = {partition: number + self._step for partition, number in self._numbers.items()}
        return self._step


@pytest.mark.parametrize(
    ("wanted", "step", "is_swapped"),
    [
        ({0: 5, 1: 7}, 0, True),
        ({0: 6, 1: 8}, 0, True),
        ({0: 5, 1: 6}, 0, False),
        ({0: 1, 1: 1}, 3, True),
        ({0: 5}, 0, False),
    ],
)
def test_only_what_has_caught_up_on_every_partition_may_be_shown(
    wanted: dict[int, int], step: int, *, is_swapped: bool
) -> None:
    shown: Any = Shown({0: 5, 1: 7})
    feeding: Any = Wanted(wanted, step=step)
    assert catch_up(shown, feeding, Table(MIRROR, "Tally", 2), partitions=2) is is_swapped


def test_a_generation_that_is_far_behind_is_not_waited_for_by_the_one_that_is_shown() -> None:
    shown: Any = Shown({0: SWAP_COMMITS_MAX, 1: 1})
    for number, near in ((1, True), (0, False)):
        feeding: Any = Wanted({0: number})
        assert (commits_behind(shown, feeding, Table(MIRROR, "Tally", 2)) <= SWAP_COMMITS_MAX) is near


def test_a_wish_is_carried_out_wherever_it_is_possible_and_refused_where_it_is_nowhere() -> None:
    fresh, rebuilt = Generations(), Generations(fed=(1, 2), shown=2, before=1, last=2)
    assert list(Wish.ROLLBACK.steps({"Order": fresh, "Cart": rebuilt})) == ["Cart"]
    with pytest.raises(SettingsError, match="Order: Generation 1 is shown"):
        Wish.ROLLBACK.steps({"Order": fresh})
