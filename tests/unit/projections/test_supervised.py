"""Who opens the engine of a folder while a supervisor lives: nobody but its projector."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from magnetar.projections import query as module
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.query import QueryFormat, query
from magnetar.projections.supervised import SUPERVISOR_FILE, is_supervised
from magnetar.schemas import StoreUnavailable


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose supervisor lives."""
    (tmp_path / "clickhouse").mkdir()
    with (tmp_path / SUPERVISOR_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield tmp_path


def test_a_lock_tells_that_one_lives(held: Path) -> None:
    assert is_supervised(held)


def test_a_lock_that_nobody_holds_and_none_at_all_tell_that_none_does(tmp_path: Path) -> None:
    assert not is_supervised(tmp_path)
    (tmp_path / SUPERVISOR_FILE).write_text("4711")
    assert not is_supervised(tmp_path)


def test_a_query_does_not_open_the_engine_then_and_says_who_does(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUPERVISED_SECONDS", 0.3)
    with pytest.raises(
        StoreUnavailable, match="`magnetar dev` runs on this data folder, and its projector does not answer"
    ) as late:
        query(held, "SELECT 1", QueryFormat.CSV)
    assert "just being started anew? Try again" in late.value.cure
    assert list((held / "clickhouse").iterdir()) == []


def test_a_query_waits_until_the_projector_answers_that_is_started_anew(
    held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STARTING_SECONDS", 0.0)  # as if it took longer than a folder without `magnetar dev`
    waited, answers = Event(), list[bytes]()

    def endpoint(_: Path) -> Endpoint | None:
        waited.set()
        return Endpoint("http://127.0.0.1:1/", "token") if answering.is_set() else None

    answering = Event()
    monkeypatch.setattr(module, "read_endpoint", endpoint)
    monkeypatch.setattr(module, "ask_endpoint", lambda *_: b"1")
    thread = Thread(target=lambda: answers.append(query(held, "SELECT 1", QueryFormat.CSV)))
    thread.start()
    assert waited.wait(30)
    answering.set()
    thread.join(30)
    assert answers == [b"1"]
