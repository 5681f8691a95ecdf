"""Plans of a server's tables, for projections of every kind. The server is tests/clickhouse_server.py's."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.planned_tables import PlanningStore, plan_tables
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.provisioning import Step, apply
from magnetar.pipelines.settings import Settings
from magnetar.projections import Sql
from magnetar.projections.generations import GenerationTable, Kind
from magnetar.projections.generations import Step as Made
from magnetar.projections.store import Store

from examples.flights.flight import Flight
from examples.flights.pipeline import flights
from tests.clickhouse_server import clickhouse
from tests.unit.pipelines.boards import Board1, Board2, Planned, pipeline
from tests.unit.pipelines.typed import read_purses


class PlannedWithin(Planned, wire_name="Planned"):
    """Every plan."""

    keep = timedelta(days=30)


class Everywhere(Sql):
    """It's all of Board's and more: "quoted", \\ and
    of two lines."""

    select = """
        WITH planned AS (SELECT _id, status FROM board) -- the newest
        SELECT DISTINCT b.status AS status, 'flights.board (' AS said FROM planned AS b
        WHERE b._id IN (SELECT _id FROM Scheduled WHERE _id != '')
    """
    status: str
    said: str


everything = Pipeline("flights", aggregates=[Flight], projections=[Planned, Board1, Everywhere], partitions=2)


class Rig:
    """A server, and an empty log."""

    def __init__(self, folder: Path, store: Store, planning: PlanningStore) -> None:
        self.settings, self.clock = Settings(data=folder), SystemClock()
        self.log = SqliteLog(folder, self.clock)
        self.store, self._planning = store, planning

    def plan(self, of: Pipeline) -> list[Step]:
        return plan_tables(of, self.log, self._planning, self.settings, clock=self.clock)

    def said(self, of: Pipeline) -> list[str]:
        return [str(step) for step in self.plan(of)]

    def prepare(self, of: Pipeline) -> None:
        projector = Projector(of, self.log, self.store, self.settings, clock=self.clock)
        projector.prepare()
        projector.close()

    def made(self) -> Sequence[Sequence[str]]:
        return self.store.query(
            "SELECT database, name, create_table_query FROM system.tables "
            "WHERE database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') ORDER BY ALL"
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "server").mkdir()
    with (
        clickhouse(tmp_path / "server") as server,
        contextlib.closing(Store(server.endpoint)) as store,
        contextlib.closing(PlanningStore(server.endpoint)) as planning,
    ):
        rig = Rig(tmp_path / "data", store, planning)
        yield rig
        rig.log.close()


@pytest.mark.parametrize("of", [read_purses, everything, flights], ids=["purses", "boards", "flights"])
def test_what_is_planned_is_what_a_projector_makes(rig: Rig, of: Pipeline) -> None:
    steps = rig.plan(of)
    assert {str(step)[0] for step in steps} == {"+"}
    assert not rig.made(), "a plan changes nothing"
    apply(steps)
    provisioned = rig.made()
    assert rig.said(of) == []
    rig.prepare(of)
    assert rig.made() == provisioned
    assert rig.said(of) == []


def test_tables_from_before_the_codecs_are_no_difference(rig: Rig) -> None:
    rig.prepare(everything)
    for table, column in rig.store.query(
        "SELECT table, name FROM system.columns "
        "WHERE database = 'flights' AND compression_codec != '' AND name != '_is_deleted'"
    ):
        rig.store.command(f"ALTER TABLE flights.{table} MODIFY COLUMN `{column}` REMOVE CODEC")
    assert rig.said(everything) == []


def test_another_time_to_live_is_planned(rig: Rig) -> None:
    rig.prepare(everything)
    rig.store.command("ALTER TABLE flights.planned__g1 MODIFY TTL _at + toIntervalSecond(172800)")
    assert rig.said(everything) == ["~ table flights.planned__g1: keeps its rows for ever"]
    rig.store.command("ALTER TABLE flights.planned__g1 REMOVE TTL")
    kept = Pipeline("flights", aggregates=[Flight], projections=[PlannedWithin, Board1, Everywhere], partitions=2)
    assert rig.said(kept) == [
        "~ table flights.planned__g1: keeps its rows for 30 days",
        "~ view flights.planned: its query, columns or comments are others",
    ]
    apply(rig.plan(kept))
    assert rig.said(kept) == []


def test_what_somebody_has_removed_is_made_again(rig: Rig) -> None:
    rig.prepare(everything)
    for statement in (
        "DROP VIEW flights.Scheduled",
        "DROP TABLE flights.planned__g1",
        "ALTER TABLE magnetar.pending DROP COLUMN counted",
        "CREATE OR REPLACE VIEW flights.board AS SELECT 1 AS status",
    ):
        rig.store.command(statement)
    assert rig.said(everything) == [
        "~ table magnetar.pending: gains column counted UInt64",
        "+ table flights.planned__g1: Every plan.",
        "+ view flights.Scheduled: A flight is planned.",
        "~ view flights.board: its query, columns or comments are others",
    ]
    apply(rig.plan(everything))
    assert rig.said(everything) == []


def test_views_are_of_the_generation_that_is_shown(rig: Rig) -> None:
    rig.prepare(pipeline(Board1))
    steps = GenerationTable(rig.store)
    steps.write("Board", "flights", [Made(2, Kind.WANTED)])
    assert rig.said(pipeline(Board1)) == ["+ table flights.board__g2: Where each flight is."]
    apply(rig.plan(pipeline(Board1)))
    steps.write("Board", "flights", [Made(2, Kind.SHOWN)])
    assert rig.said(pipeline(Board1)) == ["~ view flights.board: its query, columns or comments are others"]
    apply(rig.plan(pipeline(Board1)))
    assert "flights.board__g2" in str(rig.store.query("SHOW CREATE TABLE flights.board"))
    steps.write("Board", "flights", [Made(1, Kind.DROPPED)])
    assert rig.said(pipeline(Board1)) == []


def test_a_table_of_other_code_stays_and_is_said_to_wait_for_a_rebuild(rig: Rig) -> None:
    rig.prepare(pipeline(Board1))
    (kept,) = rig.said(pipeline(Board2))
    assert kept.startswith("= table of Board, generation 1: Board has changed: generation 1 was filled by other code")
    apply(rig.plan(pipeline(Board2)))
    assert rig.said(pipeline(Board1)) == []
