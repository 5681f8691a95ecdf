"""Projectors frozen past a take-over and woken, and an insert that outlasts one: no row is twice in a table or missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.processes import DEADLINE_SECONDS, ROOT

pytestmark = pytest.mark.xdist_group("chaos")


def wrong_after(folder: Path, case: str, sabotage: str | None = None) -> list[str]:
    """Run a case in a process of its own, which has an engine of its own."""
    command = [sys.executable, "-m", "tests.chaos.frozen_projectors", case, str(folder)]
    command += ["--sabotage", sabotage] if sabotage else []
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * DEADLINE_SECONDS)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0
    found: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_projectors_that_slept_through_a_take_over_insert_nothing(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, "frozen") == []


def test_without_the_check_of_the_lease_that_fails(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, "frozen", "lease_not_checked")


def test_a_slow_insert_is_over_before_the_next_owner_reads_how_far_the_table_is(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, "slow") == []


def test_checking_the_lease_without_waiting_for_older_inserts_fails(tmp_path: Path) -> None:
    assert wrong_after(tmp_path, "slow", "older_inserts_not_stopped")
