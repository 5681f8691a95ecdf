"""Typed rows: the tests in one process are in reading_suite.py, and have an engine to themselves."""

import threading
import time
from pathlib import Path

import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.kept import kept
from magnetar.pipelines.pipeline import Pipeline
from magnetar.projections import Sql
from magnetar.projections.freshness import patiently, waiting
from magnetar.schemas import StoreUnavailable, TablesBehind

from tests.unit.pipelines.purses import Door, Place, Purse
from tests.unit.pipelines.test_embedded import run_pytest
from tests.unit.pipelines.typed import Richest, read_purses


def test_typed_rows_are_read_in_an_embedded_pipeline(tmp_path: Path) -> None:
    assert " passed" in run_pytest("tests/unit/pipelines/reading_suite.py", tmp_path)


def test_without_a_projector_it_says_who_is_missing(tmp_path: Path) -> None:
    client = SyncClient(read_purses, settings=Place(tmp_path).settings)
    with client, pytest.raises(StoreUnavailable, match=r"Nobody has the tables in .* open.*magnetar dev"):
        client.query(Richest, wait_seconds=0)


def test_it_waits_for_a_projector_that_is_started_meanwhile(tmp_path: Path) -> None:
    attempts: list[bool] = []

    def attempt(is_last: bool) -> str:
        attempts.append(is_last)
        if len(attempts) < 3:
            raise (StoreUnavailable("away"), TablesBehind("behind"))[len(attempts) - 1]
        return "rows"

    assert waiting(patiently(attempt, 60)) == "rows"
    assert attempts == [False, False, False]


def test_the_last_attempt_is_after_the_time_is_over_and_its_error_is_raised() -> None:
    attempts: list[tuple[bool, float]] = []
    started = time.monotonic()

    def attempt(is_last: bool) -> None:
        attempts.append((is_last, time.monotonic() - started))
        raise TablesBehind("behind")

    with pytest.raises(TablesBehind):
        waiting(patiently(attempt, 0.2))
    assert [is_last for is_last, _ in attempts[:-1]] == [False] * (len(attempts) - 1)
    assert attempts[-1][0]
    assert attempts[-1][1] >= 0.2


class OfDoors(Sql):
    select = "SELECT count() AS knocks FROM Knocked"
    knocks: int


class OfAll(Sql):
    select = "SELECT count() AS n FROM commits"
    n: int


class OfAnother(Sql):
    select = "SELECT knocks FROM of_doors"
    knocks: int


def test_a_view_is_kept_by_the_mirrors_of_the_aggregates_that_it_reads() -> None:
    pipeline = Pipeline("purses", aggregates=[Purse, Door], projections=[OfDoors, OfAll, OfAnother, Richest])
    found: dict[str, list[str]] = {}
    for each in kept(pipeline):
        found.setdefault(each.projection, []).append(each.aggregate)
    assert found == {
        "mirror": ["Purse", "Door"],
        "of_doors": ["Door"],
        "of_all": ["Purse", "Door"],
        "of_another": ["Purse", "Door"],
        "richest": ["Purse"],
    }


def test_a_client_may_be_closed_while_another_thread_reads(tmp_path: Path) -> None:
    client = SyncClient(read_purses, settings=Place(tmp_path).settings)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            client.query(Richest, wait_seconds=0.2)
        except StoreUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    client.close()
    thread.join(30)
    assert len(errors) == 1
