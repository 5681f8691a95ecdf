"""A whole pipeline in one process: the tests are in embedded_suite.py, and have an engine to themselves."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

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
