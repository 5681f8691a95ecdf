"""What a process says of itself: whether it lives, whether it is ready, and its figures."""

import socket
from pathlib import Path

import httpx
import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.health import Health, answering, application
from magnetar.pipelines.settings import Settings
from magnetar.schemas import SettingsError
from starlette.testclient import TestClient


class ClockByHand(SystemClock):
    """A clock that is set by the test."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_loop_that_goes_round_is_alive_and_a_stuck_one_is_not() -> None:
    clock = ClockByHand()
    health = Health(clock, stuck_seconds=10)
    client = TestClient(application(health))
    clock.now += 9
    assert client.get("/healthz").status_code == 200
    clock.now += 2
    stuck = client.get("/healthz")
    assert (stuck.status_code, stuck.text) == (503, "the loop has not come round for 11 s\n")
    health.beat()
    assert client.get("/healthz").status_code == 200


def test_a_process_is_ready_once_it_takes_part() -> None:
    health = Health(SystemClock())
    client = TestClient(application(health))
    assert client.get("/readyz").status_code == 503
    health.is_ready = True
    assert client.get("/readyz").status_code == 200


def test_nothing_listens_unless_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: pytest.fail("it listened"))
    with answering(Health(SystemClock()), Settings(data=tmp_path)):
        pass


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        settings = Settings(data=tmp_path, health_port=port)
        with (
            pytest.raises(SettingsError, match=rf"Port {port} of 127\.0\.0\.1 .*"),
            answering(Health(SystemClock()), settings),
        ):
            pytest.fail("it listened on a port that is taken")


def test_the_answers_come_over_http_while_the_process_works(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    health = Health(SystemClock())
    with answering(health, Settings(data=tmp_path, health_port=port)):
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def test_a_loop_that_asks_whether_to_stop_is_alive() -> None:
    clock = ClockByHand()
    health = Health(clock, stuck_seconds=10)
    stopped = health.beating(lambda: False)
    clock.now += 11
    assert not health.is_alive
    assert stopped() is False
    assert health.is_alive
