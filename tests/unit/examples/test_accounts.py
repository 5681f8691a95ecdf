"""The example `accounts`: its own tests, as its authors would run them, and what they cannot see from inside."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import workers_of
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from starlette.testclient import TestClient

from examples.accounts import api
from examples.accounts.pipeline import accounts
from tests.unit.pipelines.test_embedded import run_pytest


def test_its_own_tests_pass(tmp_path: Path) -> None:
    assert " passed" in run_pytest("examples/accounts", tmp_path)


def test_without_a_worker_the_caller_learns_how_to_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNETAR_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(api, "ANSWER_SECONDS", 0.5)
    clock = SystemClock()
    log = SqliteLog(tmp_path / "data", clock)
    provision(accounts, log)
    with TestClient(api.app) as http:
        request: dict[str, Any] = {"json": {"name": "Anna"}, "headers": {"X-Actor": "anna"}}
        unknown = http.put("/users/anna/name", **request)
        assert unknown.status_code == 503
        (worker,) = workers_of(accounts, log, name="late", clock=clock)
        while worker.step(timeout_seconds=0.1):
            pass
        monkeypatch.setattr(api, "ANSWER_SECONDS", 30.0)
        request["headers"]["Idempotency-Key"] = unknown.json()["command_id"]
        with ThreadPoolExecutor(1) as thread:
            repeating = thread.submit(http.put, "/users/anna/name", **request)
            while not repeating.done():
                worker.step(timeout_seconds=0.05)
        worker.close()
    assert (repeating.result().status_code, repeating.result().json()["version"]) == (200, 1)
    log.close()


def test_what_is_wrong_with_the_data_folder_is_none_of_the_callers_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGNETAR_DATA", str(tmp_path / "data"))
    log = SqliteLog(tmp_path / "data", SystemClock())
    provision(accounts, log)
    log.close()
    for file in (tmp_path / "data" / "log" / "accounts" / "user-commands").glob("?*.sqlite"):
        file.write_bytes(b"no database" * 1000)
    with TestClient(api.app) as http:
        answer = http.put("/users/anna/name", json={"name": "Anna"}, headers={"X-Actor": "anna"})
    assert (answer.status_code, str(tmp_path) in answer.text) == (500, False)
