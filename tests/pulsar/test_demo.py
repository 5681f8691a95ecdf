"""`make demo BROKER=pulsar`: the demo on a real broker of its own comes to the numbers of the CSV."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_the_demo_on_a_broker_of_its_own_comes_to_the_numbers_of_the_csv(tmp_path: Path) -> None:
    dry = ["make", "-n", "demo", "BROKER=pulsar", "FIRST=300", f"DATA={tmp_path}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAGNETAR_", "MAKE"))}
    printed = subprocess.run(dry, cwd=ROOT, env=clean, capture_output=True, text=True, check=True).stdout
    command = shlex.split(printed[printed.index(".venv/bin/python -m tests.pulsar_rig") :].replace("\\\n", " "))
    asked = [sys.executable if word == ".venv/bin/python" else word for word in command]
    ran = subprocess.run(asked, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("equal to the sums from the CSV") == 7
    assert f"make query DATA={tmp_path} SQL=" in ran.stdout
    assert (tmp_path / "broker" / "data").is_dir(), "the log is kept, so that the demo can be run again"
