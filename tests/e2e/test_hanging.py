"""Processes whose user's code hangs: what their probe answers, on another thread than the one that hangs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.settings import Settings

from tests.chaos.processes import eventually
from tests.e2e.hanging import BRAIN_HANGS, PROJECTION_HANGS, STUCK_SECONDS, Pay, Purse, hanging
from tests.pulsar_rig import free_ports

SECONDS_MAX = 120
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running(role: str, data: Path) -> Iterator[Callable[[], httpx.Response]]:
    """A process of the pipeline, and how to ask whether it is alive."""
    (port,) = free_ports(1)
    environment = os.environ | {"MAGNETAR_HEALTH_PORT": str(port), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "tests.e2e.hanging", role, str(data)], env=environment)
    try:
        eventually(lambda: answers(port), f"{role} is ready")
        yield lambda: httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=SECONDS_MAX)
    finally:
        process.kill()  # it does not hear anything else any more
        process.wait(SECONDS_MAX)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("role", "amount", "called"),
    [("worker", BRAIN_HANGS, "Purse.apply"), ("projector", PROJECTION_HANGS, "Payment.project")],
)
def test_a_process_whose_users_code_hangs_is_not_alive_and_says_so(
    tmp_path: Path, role: str, amount: int, called: str
) -> None:
    with ExitStack() as processes:
        healthz = {each: processes.enter_context(running(each, tmp_path)) for each in ("worker", "projector")}
        with SyncClient(hanging, settings=Settings(data=tmp_path)) as client:
            client.ask(Purse, "a", Pay(1), timeout_seconds=SECONDS_MAX)
            until = time.monotonic() + 2 * STUCK_SECONDS
            while time.monotonic() < until:  # idle is alive, for however long
                assert healthz[role]().status_code == 200
                time.sleep(0.2)  # how often it is asked, as by a probe
            client.send(Purse, "a", Pay(amount))
            eventually(lambda: healthz[role]().status_code == 503, "stuck")
        said = healthz[role]().text
        assert said.startswith("the loop has not come round for ")
        assert f"; it is in {called} at hanging.py:" in said
        (other,) = healthz.keys() - {role}
        assert healthz[other]().status_code == 200, "the other one goes on"
