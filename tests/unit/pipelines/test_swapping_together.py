"""Two projectors of one server's tables, one of which is frozen or dies at each step of a swap.

A reader looks again and again: what he has seen once, he sees for ever.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.standing_still import stand_still
from magnetar.pipelines.wishes import Wish
from magnetar.projections import Fold
from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Generations, GenerationTable, Kind, Step
from magnetar.projections.leased_table import Table
from magnetar.projections.store import Store
from magnetar.schemas import LeaseLost, StoreUnavailable

from tests.chaos.processes import eventually
from tests.clickhouse_server import Running, clickhouse
from tests.unit.pipelines.counting_rig import Added, Rig, Tally

NAMES = (f"tallies{n}" for n in itertools.count())
SEEN = {"Tally": "SELECT count() FROM {}.tally__commits", "Total": "SELECT sum(total) FROM {}.total"}
"""By target, what gets greater with every event in the tables that are shown."""


class Total(Fold):
    """Each tally's total."""

    total: int = 0

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


class Died(BaseException):
    """What kills a projector where it is."""


class Clock(SystemClock):
    """The machine's, which jumps."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Part:
    """One projector: which partitions it has, what happens at its failpoints, and whether it may fill."""

    tables = frozenset(SEEN)

    def __init__(self, stage: "Stage", *partitions: int) -> None:
        self.partitions = frozenset(partitions)
        self.at: dict[str, Callable[[], None]] = {}
        """What happens at the first passing of a failpoint."""
        self.may_fill = True
        sharing: Any = self
        self.projector = Projector(
            stage.pipeline,
            stage.rig.log,
            stage.store,
            Settings(data=stage.rig.folder),
            clock=stage.clock,
            failpoint=self._passes,
            sharing=sharing,
        )

    def mine(self, _: str) -> frozenset[int]:
        """What Sharing says."""
        return self.partitions

    def _passes(self, name: str) -> None:
        if name == "filling_after_pending" and not self.may_fill:
            raise StoreUnavailable("The server is slow.")
        if happens := self.at.pop(name, None):
            happens()

    def step(self) -> None:
        """Once round, without a look at what others have written down."""
        self.projector.step()

    def look_and_step(self) -> None:
        """Once round."""
        self.projector.look_for_wishes()
        self.step()


class Stage:
    """A log, a server, two projectors with a partition each, and a reader."""

    def __init__(self, folder: Path, store: Store, target: str) -> None:
        self.pipeline = Pipeline(next(NAMES), aggregates=[Tally], projections=[Total], partitions=2)
        self.rig, self.store, self.target = Rig(folder, self.pipeline), store, target
        self.clock = Clock()
        self.one, self.two = Part(self, 0), Part(self, 1)
        self.seen: list[int] = []
        self.send()
        for each in (self.one, self.two):
            each.projector.prepare()
            each.projector.open()
            each.step()
        assert self.look() > 0

    def send(self) -> None:
        """More events on both partitions."""
        for id in "abcd":
            self.rig.send(1, id=id)

    def look(self) -> int:
        """What the reader sees."""
        ((seen,),) = self.store.query(SEEN[self.target].format(self.pipeline.name))
        self.seen.append(seen)
        return int(seen)

    @property
    def lost(self) -> list[tuple[int, int]]:
        """What the reader saw, and less after it."""
        return [(one, next_) for one, next_ in itertools.pairwise(self.seen) if next_ < one]

    def known(self) -> Generations:
        return generations_of(self.store.rows, self.pipeline, self.target)

    def shown(self) -> set[str]:
        """The generations that the target's views show."""
        view = "tally__%" if self.target == "Tally" else "total"
        rows = self.store.query(
            "SELECT extract(create_table_query, '__g(\\d+)') FROM system.tables "
            f"WHERE database = '{self.pipeline.name}' AND engine = 'View' AND name LIKE '{view}'"
        )
        return {number or "1" for (number,) in rows}

    def both_until(self, holds: Callable[[], bool]) -> None:
        """Both step, and the reader looks, until something is so."""
        for _ in range(200):
            for each in (self.one, self.two):
                each.look_and_step()
                self.look()
            if holds():
                return
            self.clock.ahead += 1
            self.clock.sleep(0.02)
        pytest.fail(f"{self.known()}, {self.shown()}")

    def rebuild(self) -> None:
        """Wish for it, and begin."""
        self.one.projector.wish(Wish.REBUILD, [self.target])
        self.two.look_and_step()

    def two_goes_on(self) -> None:
        """Long enough after it has lost its partition, and with new events, but not in what is being filled."""
        self.two.may_fill = False
        self.send()
        for _ in range(3):
            self.clock.ahead += 20
            self.two.step()
            self.look()

    def close(self) -> None:
        for each in (self.one, self.two):
            each.projector.close()
        self.rig.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with clickhouse(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=SEEN)
def stage(request: pytest.FixtureRequest, tmp_path: Path, server: Running) -> Iterator[Stage]:
    store = Store(server.endpoint)
    stage = Stage(tmp_path / "data", store, request.param)
    yield stage
    stage.close()
    store.close()


def test_a_swap_is_given_up_when_another_one_feeds_again_before_it_is_written_down(stage: Stage) -> None:
    at = list[Generations]()

    def frozen() -> None:
        stage.two_goes_on()
        at.append(stage.known())

    stage.one.at["before_swap"] = frozen
    stage.rebuild()
    stage.both_until(lambda: bool(at))
    assert (stage.known().shown, stage.shown()) == (1, {"1"})
    stage.two.may_fill = True
    stage.both_until(lambda: stage.known().shown == 2)
    assert (stage.lost, stage.shown()) == ([], {"2"})


@pytest.mark.parametrize("wakes", [True, False])
def test_what_is_written_down_is_shown_by_others_before_they_feed_what_was_shown(stage: Stage, wakes: bool) -> None:
    meanwhile = list[set[str]]()

    def frozen() -> None:
        stage.two_goes_on()
        stage.two.look_and_step()
        stage.look()
        meanwhile.append(stage.shown())
        if not wakes:
            raise Died

    stage.one.at["swap_recorded"] = frozen
    stage.rebuild()
    if wakes:
        stage.both_until(lambda: bool(meanwhile))
    else:
        with pytest.raises(Died):
            stage.both_until(lambda: bool(meanwhile))
        stage.one = stage.two
        stage.two.partitions = frozenset({0, 1})
    assert (stage.known().shown, meanwhile) == (2, [{"2"}])
    stage.two.may_fill = True
    stage.both_until(lambda: stage.look() == 8)
    assert (stage.lost, stage.shown()) == ([], {"2"})
    before = f"SELECT count() FROM {stage.pipeline.name}.tally__commits__g1"
    stage.both_until(lambda: stage.store.query(before) == [(8,)])  # for a rollback


@pytest.mark.parametrize("stage", ["Tally"], indirect=True)
def test_who_wakes_while_he_shows_a_generation_shows_what_was_written_down_since(stage: Stage) -> None:
    def frozen() -> None:
        stage.two.partitions = frozenset({0, 1})
        stage.two.look_and_step()
        stage.two.projector.wish(Wish.ROLLBACK, ["Tally"])
        for _ in range(50):
            stage.clock.ahead += 20
            stage.two.look_and_step()
            stage.look()
        assert (stage.known().shown, stage.shown()) == (1, {"1"})

    stage.one.at["between_views"] = frozen
    stage.rebuild()
    stage.both_until(lambda: stage.known().swaps == 2)
    stage.one.look_and_step()
    assert stage.shown() == {"1"}


def test_who_begins_does_not_show_what_was_shown_when_he_looked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.rebuild()
    begun, create = Part(stage, 1), Projector._create_views

    def late(projector: Projector) -> None:
        stage.both_until(lambda: stage.shown() == {"2"})
        stage.send()
        stage.both_until(lambda: stage.look() == 8)
        create(projector)

    monkeypatch.setattr(begun.projector, "_create_views", lambda: late(begun.projector))
    begun.projector.prepare()
    assert (stage.look(), stage.shown()) == (8, {"2"})
    assert stage.lost == []
    begun.projector.close()


@pytest.mark.parametrize("stage", ["Tally"], indirect=True)
def test_while_the_views_cannot_be_changed_the_tables_stand_still(stage: Stage) -> None:
    def refused() -> None:
        raise StoreUnavailable("The server is slow.")

    def frozen() -> None:
        stage.two.at["between_views"] = refused
        stage.two_goes_on()

    stage.one.at["swap_recorded"] = frozen
    stage.rebuild()
    stage.both_until(lambda: stage.known().shown == 2)
    assert not stage.two.at, "it was refused"
    stage.two.may_fill = True
    stage.both_until(lambda: stage.look() == 8)
    assert stage.lost == []


@pytest.mark.parametrize("stage", ["Tally"], indirect=True)
def test_who_takes_a_lease_ends_or_outwaits_what_is_being_written_down_under_it(stage: Stage) -> None:
    table = stage.one.projector._make(Table(MIRROR, "Tally", 1))
    (held,) = stand_still([(table, 2)])
    slow = held._replace(condition=f"{held.condition} AND sleep(2) = 0")
    steps = GenerationTable(stage.store)
    key = (MIRROR, f"{stage.pipeline.name}/Tally")
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(steps.write, *key, [Step(2, Kind.WANTED)], [slow])
        running = "SELECT count() FROM system.processes WHERE query LIKE '%sleep(2)%'"
        eventually(lambda: stage.store.query(running) == [(2,)], "it is being written down")  # and the question itself
        table.take_lease(1, "another")
        table.stop_older_inserts(1)
        known = steps.read(*key)
        with contextlib.suppress(StoreUnavailable):  # it was ended, or was too far for that, and its end waited for
            writing.result()
    assert steps.read(*key) == known
    with pytest.raises(LeaseLost):
        steps.write(*key, [Step(3, Kind.WANTED)], [held])
    assert steps.read(*key) == known
