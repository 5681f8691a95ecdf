"""The rig leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pulsar_rig import data_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("standalone")  # only where brokers are started
def test_a_broker_ends_with_the_process_that_started_it_and_its_data_with_the_next() -> None:
    command = [sys.executable, "-m", "tests.pulsar_rig", "start"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as rig:
        assert rig.stdout is not None
        assert "MAGNETAR_BROKER=pulsar://127.0.0.1:" in rig.stdout.readline()
        (java,) = Path(f"/proc/{rig.pid}/task/{rig.pid}/children").read_text().split()
        arguments = Path(f"/proc/{java}/cmdline").read_text().split("\0")
        data = Path(arguments[arguments.index("--metadata-dir") + 1]).parents[1]
        rig.kill()
    deadline = time.monotonic() + 30
    while (outlived := is_alive(int(java))) and time.monotonic() < deadline:
        time.sleep(0.05)
    if outlived:
        os.kill(int(java), signal.SIGKILL)
    assert not outlived, "the broker has outlived the process that started it"
    assert data.exists()
    with data_folder():
        assert not data.exists()


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
