"""Projectors frozen past a take-over and woken, an insert that outlasts one, lost files: no row is missing or twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from magnetar.projections.range_loop import FAILPOINTS

from tests.chaos.processes import DEADLINE_SECONDS, ROOT

KINDS = ("Mirror", "RowsTable", "FoldTable", "KeyedFoldTable", "IncrementalTable")

pytestmark = pytest.mark.xdist_group("chaos")


def run_case(folder: Path, case: str, sabotage: str | None = None) -> tuple[list[str], str]:
    """Run a case in a process with an engine of its own; returns what is wrong, and what was printed."""
    command = [sys.executable, "-m", "tests.chaos.frozen_projectors", case, str(folder)]
    command += ["--sabotage", sabotage] if sabotage else []
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * DEADLINE_SECONDS)
    print(ran.stdout[-8000:], ran.stderr[-8000:])
    assert ran.returncode == 0
    return json.loads(ran.stdout.splitlines()[-1]), ran.stdout


def test_projectors_that_slept_through_a_take_over_insert_nothing(tmp_path: Path) -> None:
    wrong, printed = run_case(tmp_path, "frozen")
    assert wrong == []
    for failpoint in FAILPOINTS:
        for kind in KINDS if failpoint != "between_tables" else KINDS[:1]:
            assert f"frozen-{kind}-{failpoint} LeaseLost" in printed


def test_without_the_check_of_the_lease_that_fails(tmp_path: Path) -> None:
    wrong, _ = run_case(tmp_path, "frozen", "lease_not_checked")
    assert wrong


@pytest.mark.parametrize("kind", ["mirror", "rows", "fold", "keyed_fold", "incremental"])
def test_a_slow_insert_is_over_before_the_next_owner_reads_how_far_the_table_is(tmp_path: Path, kind: str) -> None:
    wrong, printed = run_case(tmp_path, f"slow_{kind}")
    assert wrong == []
    assert "the slow insert is under way: False" in printed
    assert "Query was cancelled" in printed


@pytest.mark.parametrize("kind", ["mirror", "rows", "incremental"])
def test_checking_the_lease_without_waiting_for_older_inserts_fails(tmp_path: Path, kind: str) -> None:
    wrong, printed = run_case(tmp_path, f"slow_{kind}", "older_inserts_not_stopped")
    assert "the slow insert is under way: True" in printed
    assert "it has outlasted the tokens: True" in printed
    assert wrong


def test_what_clickhouse_loses_in_a_power_cut_is_noticed_and_filled_again_from_the_log(tmp_path: Path) -> None:
    wrong, printed = run_case(tmp_path, "lost")
    assert "do not fit the log" in printed
    assert wrong == []
