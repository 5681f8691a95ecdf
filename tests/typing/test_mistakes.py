"""mypy and pyright, strict, find the mistakes in mistakes.py, each on its line, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISTAKES = Path("tests", "typing", "mistakes.py")
ROOMS = ("schemas", "aggregates", "projections", "pipelines")


def expected(checker: str) -> list[int]:
    lines = enumerate((ROOT / MISTAKES).read_text().splitlines(), 1)
    return [number for number, line in lines if checker in line.partition("# expect: ")[2].split(", ")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which the checkers find magnetar under the names that it has once installed."""
    for name in ("pyproject.toml", "examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    package = tmp_path / ".types" / "magnetar"
    package.mkdir(parents=True)
    for file in (ROOT / "magnetar").glob("*.py*"):
        (package / file.name).symlink_to(file)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    return tmp_path


def reported(project: Path, *command: str) -> tuple[list[int], str]:
    """The lines of mistakes.py on which a checker has found an error, and all that it printed."""
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    ran = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:], MISTAKES],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    found = re.findall(r"mistakes\.py:(\d+)(?::\d+)?(?: -|:) error", ran.stdout)
    return sorted({int(number) for number in found}), ran.stdout + ran.stderr


def test_mypy_finds_each_mistake_and_nothing_else(project: Path) -> None:
    found, told = reported(project, "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "mistakes"))
    assert found == expected("mypy"), told


def test_pyright_finds_each_mistake_and_nothing_else(project: Path) -> None:
    found, told = reported(project, "pyright", "--pythonpath", sys.executable)
    assert found == expected("pyright"), told


def test_every_mistake_is_found_by_both() -> None:
    assert len(expected("mypy")) > 30
    assert expected("mypy") == expected("pyright")
