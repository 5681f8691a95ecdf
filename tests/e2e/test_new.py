"""`magnetar new`: a project whose tests pass, whose types fit, and which runs."""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from magnetar.pipelines.new_project import origin_of
from packaging.requirements import Requirement

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


def test_it_requires_magnetar_from_where_it_is_installed(project: Shell) -> None:
    declared = tomllib.loads((project.folder / "pyproject.toml").read_text())["project"]["dependencies"]
    installed = distribution("magnetar")
    origin = origin_of(installed.version, installed.read_text("direct_url.json"))
    assert declared == [origin.requirement]
    Requirement(declared[0])
    assert origin.readme in (project.folder / "README.md").read_text()
    assert origin.ci in (project.folder / ".github" / "workflows" / "ci.yml").read_text()
    assert origin.docker in (project.folder / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("direct_url", "requirement", "is_local"),
    [
        (None, "magnetar[embedded]>=1.2.3", False),
        (
            {"url": "file:///src/magnetar", "dir_info": {"editable": True}},
            "magnetar[embedded] @ file:///src/magnetar",
            True,
        ),
        ({"url": "file:///m-1.2.3-py3-none-any.whl"}, "magnetar[embedded] @ file:///m-1.2.3-py3-none-any.whl", True),
        ({"url": "https://x.org/m.whl", "archive_info": {}}, "magnetar[embedded] @ https://x.org/m.whl", False),
        (
            {"url": "https://x.org/m.git", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}},
            "magnetar[embedded] @ git+https://x.org/m.git@a1b2",
            False,
        ),
    ],
    ids=["index", "checkout", "wheel", "address", "git"],
)
def test_what_it_requires_can_be_installed_where_it_says(
    direct_url: dict | None, requirement: str, is_local: bool
) -> None:
    origin = origin_of("1.2.3", json.dumps(direct_url) if direct_url else None)
    assert origin.requirement == requirement
    assert Requirement(requirement).extras == {"embedded"}
    for text in (origin.readme, origin.ci, origin.docker):
        assert ("vendor" in text) == is_local


def test_its_tests_find_a_projection_that_does_not_fit(project: Shell) -> None:
    file = project.folder / "shop" / "projections.py"
    file.write_text(file.read_text().replace("sum(pieces)", "sum(peaces)"))
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "tests/test_pipeline.py"],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "Maybe you meant: ['pieces']" in ran.stdout
    assert "sql_views.py" not in ran.stdout


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
