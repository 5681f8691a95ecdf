"""Tables for a replicated cluster: the statements are generated and parsed. No cluster runs them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.preflight import Severity
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.server_preflight import examine_store
from magnetar.pipelines.settings import Settings, load_settings
from magnetar.projections.cluster import INSERT_SETTINGS, READ_SETTINGS, on_cluster
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.leased_table import Table
from magnetar.projections.store import Store
from magnetar.schemas import SettingsError

from examples.flights.pipeline import flights
from tests.unit.pipelines.typed import read_purses

MADE = ("CREATE ", "ALTER ", "DROP ", "KILL ")


def made_by(of: Pipeline, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a projector makes, and what it removes again."""
    statements = list[str]()
    command = Store.command

    def noted(of: Store, sql: str, *args: Any, **options: Any) -> None:
        statements.append(sql)
        command(of, sql, *args, **options)

    monkeypatch.setattr(Store, "command", noted)
    log = SqliteLog(folder, SystemClock())
    projector = Projector(of, log, store, Settings(data=folder), clock=SystemClock())
    projector.prepare()
    for aggregate in of.schemas:
        table = projector._kinds.mirror(Table("mirror", aggregate, 1))
        table.stop_older_inserts(0)
        table.drop()
    projector.close()
    log.close()
    monkeypatch.undo()
    store.command(f"DROP DATABASE {of.name} SYNC")
    return [each for each in statements if each.startswith(MADE)]


@pytest.mark.parametrize("of", [flights, read_purses], ids=["flights", "purses"])
def test_every_statement_is_for_the_whole_cluster_and_parses(
    of: Pipeline, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = made_by(of, store, tmp_path / "data", monkeypatch)
    assert {each.split()[0] for each in statements} == {each.strip() for each in MADE}
    for statement in statements:
        ours = on_cluster(statement, "shop_cluster")
        assert " ON CLUSTER `shop_cluster`" in ours
        assert ours.count("ReplicatedMergeTree") + ours.count("ReplicatedReplacing") + ours.count(
            "ReplicatedAggregating"
        ) == statement.count("ENGINE = ")
        assert ours.count(" replicated_deduplication_window = ") == statement.count("non_replicated_dedup")
        assert "non_replicated" not in ours
        ((found,),) = store.query("SELECT formatQuerySingleLine({sql:String})", {"sql": ours})
        assert "ON CLUSTER shop_cluster" in found


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "/* magnetar */ INSERT INTO a.b SELECT 'CREATE TABLE a.b'",
        "CREATE TEMPORARY TABLE block_1 (a Int64) ENGINE = Memory",
        "CREATE OR REPLACE TABLE a.b__scratch ENGINE = MergeTree ORDER BY tuple() AS SELECT 1",
    ],
)
def test_what_is_of_one_server_stays_as_it_is(statement: str) -> None:
    assert on_cluster(statement, "c") == statement


def test_what_a_comment_says_is_no_engine() -> None:
    statement = "CREATE TABLE IF NOT EXISTS a.b (x Int64 COMMENT 'ENGINE = MergeTree') ENGINE = MergeTree ORDER BY x"
    assert on_cluster(statement, "c") == (
        "CREATE TABLE IF NOT EXISTS a.b ON CLUSTER `c` (x Int64 COMMENT 'ENGINE = MergeTree') "
        "ENGINE = ReplicatedMergeTree ORDER BY x"
    )


class OfCluster(Store):
    """An engine that is taken for a server of a cluster."""

    @property
    def cluster(self) -> str:
        return "shop_cluster"


@pytest.fixture
def clustered(store: Store) -> Iterator[Store]:
    with contextlib.closing(OfCluster(store._at)) as clustered:
        yield clustered


def test_the_doctor_says_that_no_cluster_was_tested_and_whether_there_is_this_one(clustered: Store) -> None:
    at = Endpoint("http://host:8123", "", cluster="shop_cluster")
    found = [each for each in examine_store(flights, clustered, at, SystemClock()) if each.check == "cluster"]
    assert [each.severity for each in found] == [Severity.WARNING, Severity.DANGEROUS]
    assert "is not tested on a cluster" in str(found[0])
    assert "none called shop_cluster" in str(found[1])


def test_what_is_written_waits_for_a_quorum_and_what_is_read_is_all_of_it(clustered: Store) -> None:
    names = [*INSERT_SETTINGS, *READ_SETTINGS]
    values = ", ".join(f"toString(getSetting('{name}')) AS {name}" for name in names)
    clustered.command(f"CREATE TEMPORARY TABLE set_for ENGINE = Memory AS SELECT {values}")
    ((quorum, parallel, mode, sync, _),) = clustered.query("SELECT * FROM set_for")
    assert (quorum, parallel, mode, sync) == ("auto", "false", "throw", "2")
    assert clustered.query("SELECT toString(getSetting('select_sequential_consistency'))")[0][0] in {"1", "true"}


def test_the_embedded_engine_is_of_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNETAR_CLICKHOUSE_CLUSTER", "shop_cluster")
    with pytest.raises(SettingsError, match="the tables are in the embedded engine, which is of no cluster"):
        load_settings()
    monkeypatch.setenv("MAGNETAR_CLICKHOUSE", "https://clickhouse.example:8443")
    server = load_settings().server()
    assert server is not None
    assert server.cluster == "shop_cluster"
    monkeypatch.setenv("MAGNETAR_CLICKHOUSE_CLUSTER", "a b")
    with pytest.raises(SettingsError, match="MAGNETAR_CLICKHOUSE_CLUSTER is not usable"):
        load_settings()
