"""`magnetar new`: a project whose tests pass, whose types fit, and which runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, start_dev

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(shell: Shell) -> Shell:
    """A terminal in a new project called `shop`."""
    ran = shell.run("new", "shop")
    assert ran.returncode == 0, ran.stderr
    shell.folder /= "shop"
    return shell


def tool(project: Shell, *arguments: str, **environment: str) -> str:
    """What `python -m …` prints in the project; it must succeed."""
    ran = subprocess.run(
        [sys.executable, "-P", "-m", *arguments],
        cwd=project.folder,
        env={**project.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_its_tests_pass(project: Shell) -> None:
    assert "5 passed" in tool(project, "pytest", "-q")


def test_its_types_and_its_style_are_strict(project: Shell, tmp_path: Path) -> None:
    links = tmp_path / "types" / "magnetar"
    links.mkdir(parents=True)
    for entry in (ROOT / "magnetar").glob("*.py*"):
        (links / entry.name).symlink_to(entry)
    for room in ("schemas", "aggregates", "projections", "pipelines"):
        (links / room).symlink_to(ROOT / room)
    assert "Success: no issues found in 6 source files" in tool(
        project, "mypy", "--follow-imports=silent", MYPYPATH=str(links.parent)
    )
    assert tool(project, "ruff", "check", ".") == "All checks passed!\n"
    tool(project, "ruff", "format", "--check", ".")


def test_it_runs(project: Shell) -> None:
    start_dev(project, "shop.pipeline")
    ran = project.run("ask", "shop.pipeline", "Order", "42", "Buy", '{"sku": "tea", "pieces": 2}', "--json")
    assert json.loads(ran.stdout)["values"] == [{"type": "Bought", "sku": "tea", "pieces": 2}], ran.stderr
    sql = "SELECT * FROM shop.best_sellers"
    project.eventually(
        lambda: project.run("query", sql, "--format", "jsonl").stdout == '{"sku":"tea","sold":2}\n', "tea is sold"
    )


def test_nothing_is_overwritten(shell: Shell) -> None:
    (shell.folder / "shop").mkdir()
    (shell.folder / "shop" / "thesis.txt").write_text("important")
    ran = shell.run("new", "shop")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "shop exists already, and nothing is overwritten" in ran.stderr
    assert [path.name for path in shell.folder.rglob("*")] == ["shop", "thesis.txt"]


@pytest.mark.parametrize("name", ["Shop", "my-shop", "json", "class", "tests", "../x", "magnetar", ""])
def test_a_name_that_cannot_be_one_is_refused(shell: Shell, name: str) -> None:
    ran = shell.run("new", "--", name)
    assert ran.returncode == 2
    assert "cannot be called" in ran.stderr
    assert list(shell.folder.iterdir()) == []
