"""`Pipeline.embedded`, as tests use it. test_embedded.py runs this in a process of its own: it has one engine."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines import worker as worker_module
from magnetar.projections import Sql
from magnetar.schemas import DeclarationError, LogUnavailable, QueryRefused, SettingsError, StoreUnavailable

from magnetar.testing import Embedded
from tests.unit.pipelines.purses import Door, Knock, Pay, Purse, purses


@pytest.fixture
def running() -> Iterator[Embedded]:
    with purses.embedded() as running:
        yield running


def test_a_query_sees_what_was_decided_and_sent_before_it(running: Embedded) -> None:
    running.client.ask(Purse, "a", Pay(3))
    running.client.ask(Door, "a", Knock())  # on the same partition of another topic
    assert running.query("SELECT total FROM purses.Paid") == [{"total": 3}]
    for n in range(100):
        running.client.send(Purse, f"p{n}", Pay(1))
        running.client.send(Door, f"p{n}", Knock())
    assert running.query("SELECT count() AS n FROM purses.Paid") == [{"n": 101}]
    assert running.query("SELECT count() AS n FROM purses.Knocked") == [{"n": 101}]


def test_another_one_begins_with_nothing(running: Embedded) -> None:
    assert running.query("SELECT count() AS n FROM purses.commits") == [{"n": 0}]
    running.client.ask(Purse, "a", Pay(3))
    assert running.query("SELECT count() AS n FROM purses.commits") == [{"n": 1}]


def test_rows_have_the_values_that_python_has_for_their_types(running: Embedded) -> None:
    (row,) = running.query(
        "SELECT toDateTime64('2026-01-02 03:04:05.5', 3, 'UTC') AS at, toDecimal64('1.10', 2) AS d, NULL AS n, [1] AS l"
    )
    assert row == {"at": datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC), "d": Decimal("1.10"), "n": None, "l": [1]}


def test_a_query_reads_only_and_says_what_is_wrong_with_it(running: Embedded) -> None:
    for wrong in (
        "SELEC 1",
        "SELECT * FROM purses.Nothing",
        "DROP DATABASE purses",
        "INSERT INTO magnetar.leases SELECT 1",
    ):
        with pytest.raises(QueryRefused, match="The query was refused"):
            running.query(wrong)
    assert running.query("SELECT 1 AS x") == [{"x": 1}]


def test_clients_without_settings_of_their_own_go_to_it(running: Embedded) -> None:
    with SyncClient(purses) as client:
        client.ask(Purse, "a", Pay(3))
    assert running.query("SELECT _id FROM purses.Paid") == [{"_id": "a"}]


def test_it_runs_once_at_a_time(running: Embedded) -> None:
    with pytest.raises(SettingsError, match="runs embedded already"), purses.embedded():
        pass
    assert running.client.ask(Purse, "a", Pay(3)).version == 1


def test_two_pipelines_run_at_once_and_one_of_them_is_queried(running: Embedded) -> None:
    running.query("SELECT 1")
    others = Pipeline("others", aggregates=[Door], partitions=1)
    with others.embedded() as other:
        assert other.client.ask(Door, "a", Knock()).version == 1
        with pytest.raises(StoreUnavailable, match="This process has ClickHouse open on another folder"):
            other.query("SELECT 1")
    assert running.query("SELECT 1 AS x") == [{"x": 1}]


def test_at_the_end_nothing_is_left() -> None:
    before = set(threading.enumerate())
    with purses.embedded() as running:
        folder: Path = running.settings.data
        running.client.ask(Purse, "a", Pay(3))
        running.query("SELECT 1")
        assert folder.exists()
    assert not folder.parent.exists()
    assert purses.running is None
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive(), thread.name
    with pytest.raises(SettingsError, match="does not run"):
        running.query("SELECT 1")


def test_a_projection_that_is_wrong_is_told_at_the_first_query() -> None:
    class Wrong(Sql):
        select = "SELECT sum(knock) AS knocks FROM Knocked"
        knocks: int

    with Pipeline("doors", aggregates=[Door], projections=[Wrong], partitions=1).embedded() as running:
        assert running.client.ask(Door, "a", Knock()).version == 1
        with pytest.raises(DeclarationError, match="Wrong"):
            running.query("SELECT 1")


def test_a_worker_that_ended_is_told_and_not_waited_for(running: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> bool:
        raise LogUnavailable("the disk is gone")

    monkeypatch.setattr(worker_module.Worker, "step", broken)
    with pytest.raises(LogUnavailable, match="the disk is gone"):
        running.query("SELECT 1")
