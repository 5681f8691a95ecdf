"""`magnetar copy` on the embedded log: killed at each step, and what it refuses."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import workers_of
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.settings import Settings
from magnetar.schemas import OwnershipLost, PartitionRefused, SettingsError, TopicKind

from examples.flights.data import commands, rows
from examples.flights.flight import Cancel, Flight
from examples.flights.pipeline import flights
from tests.chaos.copying import commits_of, copied_through_kills, copying, decide, target


def test_a_copy_that_is_killed_at_each_step_is_whole_in_the_end_and_goes_on(tmp_path: Path) -> None:
    copied_through_kills(tmp_path, "moved", {})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an embedded log."""
    return Settings(data=tmp_path / "data", broker="embedded")


@pytest.fixture
def log(settings: Settings) -> Iterator[SqliteLog]:
    """A log with a hundred flights, all decided."""
    log = SqliteLog(settings.data, SystemClock())
    decide(flights, log, settings, commands(islice(rows(all_months=False), 100)))
    yield log
    log.close()


def test_a_copy_that_is_done_is_left_alone(log: SqliteLog) -> None:
    list(copying(log, "moved").run())
    before = [
        list(
            log.reader(target("moved").topic("Flight", TopicKind.EVENTS), 0, after=None).read(
                messages_max=10_000, timeout_seconds=1
            )
        )
    ]
    doing = [progress.doing for progress in copying(log, "moved").run()]
    assert doing == ["looking"] * flights.partitions + ["done"]
    after = [
        list(
            log.reader(target("moved").topic("Flight", TopicKind.EVENTS), 0, after=None).read(
                messages_max=10_000, timeout_seconds=1
            )
        )
    ]
    assert before == after


def test_an_undecided_command_is_in_the_way(log: SqliteLog, settings: Settings) -> None:
    with SyncClient(flights, settings=settings) as client:
        client.send(Flight, "new", Cancel())
    with pytest.raises(SettingsError, match=r"1 commands of flights/Flight partition .* are undecided"):
        list(copying(log, "moved").run())


def test_a_repeated_command_that_left_no_commit_is_not_in_the_way(log: SqliteLog, settings: Settings) -> None:
    with SyncClient(flights, settings=settings) as client:
        first = commits_of(flights, log)[0][0]
        client.send(Flight, first.aggregate_id, Cancel(), command_id=first.command_id)
    list(copying(log, "moved").run())


def test_an_open_parked_command_is_in_the_way(log: SqliteLog, settings: Settings) -> None:
    log.publisher(flights.topic("Flight", TopicKind.COMMANDS), schema=flights.schemas["Flight"].command_json).publish(
        3, [Entry("x", b"junk")], timeout_seconds=30
    )
    decide(flights, log, settings, commands(islice(rows(all_months=False), 200, 201)))
    with pytest.raises(SettingsError, match="1 parked commands of flights are open"):
        list(copying(log, "moved").run())


def test_a_command_decided_meanwhile_is_noticed(log: SqliteLog, settings: Settings) -> None:
    def meanwhile(failpoint: str) -> None:
        if failpoint == "all_written":
            decide(flights, log, settings, commands(islice(rows(all_months=False), 200, 201)))

    with pytest.raises(SettingsError, match="flights has decided more commands meanwhile"):
        list(copying(log, "moved", failpoint=meanwhile).run())


def test_a_worker_refuses_a_context_that_is_not_whole_and_takes_it_afterwards(
    log: SqliteLog, settings: Settings
) -> None:
    def impatient(failpoint: str) -> None:
        if failpoint == "all_written":
            with SyncClient(target("moved"), settings=settings) as client:
                for number in range(20):
                    client.send(Flight, f"new{number}", Cancel())
            (worker,) = workers_of(target("moved"), log, name="w", clock=SystemClock())
            while worker.step(timeout_seconds=0.5):
                pass
            assert len(worker.refused) == target("moved").partitions
            assert "is being copied into" in str(next(iter(worker.refused.values())))
            worker.close()

    with pytest.raises((OwnershipLost, PartitionRefused)):
        list(copying(log, "moved", failpoint=impatient).run())
    list(copying(log, "moved").run())
    (worker,) = workers_of(target("moved"), log, name="w2", clock=SystemClock())
    while worker.step(timeout_seconds=0.5):
        pass
    assert not worker.refused
    worker.close()


def test_a_context_with_something_else_in_it_is_refused(log: SqliteLog, settings: Settings) -> None:
    decide(target("moved"), log, settings, commands(islice(rows(all_months=False), 5)))
    with pytest.raises(PartitionRefused, match=r"has something else for|has more than"):
        list(copying(log, "moved").run())


def test_the_own_context_is_refused(log: SqliteLog) -> None:
    with pytest.raises(SettingsError, match="flights is the context to be copied"):
        copying(log, "flights")
