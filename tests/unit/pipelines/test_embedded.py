"""A whole pipeline in one process: the tests are in embedded_suite.py, and have an engine to themselves."""

import os
import subprocess
import sys
from pathlib import Path

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.embedded import _Deciding
from magnetar.pipelines.logs.sqlite import SqliteLog

from tests.conftest import ROOT
from tests.unit.pipelines.purses import PARTITIONS, Pay, Place, Purse, purses

PROGRAM = f"import sys, pytest; sys.path.append({str(ROOT)!r}); sys.exit(pytest.main(sys.argv[1:]))"
OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]


def run_pytest(tests: str, folder: Path) -> str:
    """Run tests in a process of their own, with the packages of this one; returns what they print."""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *OPTIONS, f"--basetemp={folder / 'inner'}", str(ROOT / tests)],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_pipeline_runs_embedded(tmp_path: Path) -> None:
    assert " passed" in run_pytest("tests/unit/pipelines/embedded_suite.py", tmp_path)


def test_it_is_not_at_rest_while_it_keeps_off_a_partition(tmp_path: Path) -> None:
    place = Place(tmp_path / "data")
    log = SqliteLog(place.folder, SystemClock())
    deciding = _Deciding([purses], log)
    for partition in range(PARTITIONS):
        deciding._workers[0]._drop(partition, "LogUnavailable", "as if it had been locked")
    client = place.client()
    client.send(Purse, "a", Pay(5))
    with deciding:
        deciding.wait_until_at_rest(60)
        assert [commit.aggregate_id for commit in place.commits()] == ["a"]
    client.close()
    log.close()
