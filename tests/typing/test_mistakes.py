"""mypy and pyright, strict, find the mistakes in mistakes.py, each on its line, and none in the docs' code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, parts

MISTAKES = Path("tests", "typing", "mistakes.py")
ROOMS = ("schemas", "aggregates", "projections", "pipelines")
DOCUMENTED = ("README.md", "docs/testing.md", "docs/client.md", "docs/read-your-writes.md")
"""Pages that share a folder with `shop.py`."""


def documented() -> dict[str, str]:
    """The Python on these pages, as modules: the files that have a title, and the blocks that are run."""
    modules = {}
    for page in DOCUMENTED:
        for part in parts(ROOT / page):
            if isinstance(part, Block) and part.language == "python":
                modules[part.title or f"{Path(page).stem.lower()}_{part.line}.py"] = part.text
    return modules


def expected(checker: str) -> list[tuple[str, int]]:
    """The lines that are marked for a checker."""
    lines = enumerate((ROOT / MISTAKES).read_text().splitlines(), 1)
    marked = [number for number, line in lines if checker in line.partition("# expect: ")[2].split(", ")]
    return [(MISTAKES.name, number) for number in marked]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the docs' modules, in which the checkers find magnetar under the names that it has installed."""
    for name in ("pyproject.toml", "examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    package = tmp_path / ".types" / "magnetar"
    package.mkdir(parents=True)
    for file in (ROOT / "magnetar").glob("*.py*"):
        (package / file.name).symlink_to(file)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    for name, text in documented().items():
        (tmp_path / name).write_text(text)
    return tmp_path


def reported(project: Path, *command: str) -> tuple[list[tuple[str, int]], str]:
    """The files and lines in which a checker has found an error, and all that it printed."""
    files = [str(MISTAKES), *documented()]
    ran = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:], *files],
        cwd=project,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    found = re.findall(r"(\w+\.py):(\d+)(?::\d+)?(?: -|:) error", ran.stdout)
    return sorted({(file, int(line)) for file, line in found}), ran.stdout + ran.stderr


def test_mypy_finds_each_mistake_and_nothing_else(project: Path) -> None:
    found, told = reported(project, "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "mistakes"))
    assert found == expected("mypy"), told


def test_pyright_finds_each_mistake_and_nothing_else(project: Path) -> None:
    found, told = reported(project, "pyright", "--pythonpath", sys.executable)
    assert found == expected("pyright"), told


def test_every_mistake_is_found_by_both() -> None:
    assert len(expected("mypy")) > 30
    assert len(documented()) == 14
    assert set(expected("pyright")) - set(expected("mypy")) == {(MISTAKES.name, 84)}  # mypy knows no LiteralString
