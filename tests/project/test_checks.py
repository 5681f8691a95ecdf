"""`make check` is only worth something if each of its tools sees an error where there is one. So we plant some."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDERS = ("magnetar", "schemas", "aggregates", "projections", "pipelines", "examples", "benchmarks")

FORBIDDEN_IMPORTS = [
    *(("schemas", f"from magnetar.{room} import *") for room in ("aggregates", "projections", "pipelines", "testing")),
    *(("aggregates", f"from magnetar.{room} import *") for room in ("projections", "pipelines", "testing")),
    *(("projections", f"from magnetar.{room} import *") for room in ("aggregates", "pipelines", "testing")),
    *((room, "import pulsar") for room in ("schemas", "aggregates", "projections")),
    ("schemas", "from magnetar import Pipeline"),
    ("aggregates", "def late():\n    from magnetar.pipelines import Pipeline"),
    ("projections", "from ..pipelines import Pipeline"),
    ("pipelines", "from schemas import Event"),
]


@contextmanager
def planted(checkout: Path, files: Mapping[str, str]) -> Iterator[None]:
    """Write these files, and take them away again."""
    for name, text in files.items():
        (checkout / name).write_text(text)
    try:
        yield
    finally:
        for name in files:
            (checkout / name).unlink()


def check(checkout: Path, tool: str) -> str:
    """What the tool prints about a checkout that it must not accept."""
    environment = {**os.environ, "VENV": sys.prefix}
    run = subprocess.run(
        [checkout / "tools" / "check", tool], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"check: FAILED: {tool}" in run.stdout, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("format", "numbers = [1,\n  2]\n"),
        ("lint", "import os\n"),
        ("mypy", 'number: int = "one"\n'),
        ("pyright", 'number: int = "one"\n'),
    ],
)
def test_an_error_in_any_folder_is_seen(checkout: Path, tool: str, text: str) -> None:
    names = [f"{folder}/planted.py" for folder in FOLDERS]
    with planted(checkout, dict.fromkeys(names, text)):
        told = check(checkout, tool)
    assert [name for name in names if name not in told] == []


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_the_front_door_is_typed_for_its_users(checkout: Path, tool: str) -> None:
    with planted(checkout, {"examples/planted.py": "from magnetar import Event\n\nnumber: int = Event\n"}):
        told = check(checkout, tool)
    assert "examples/planted.py:3" in told


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_a_missing_annotation_is_seen(checkout: Path, tool: str) -> None:
    with planted(checkout, {"schemas/planted.py": "def double(number):\n    return 2 * number\n"}):
        told = check(checkout, tool)
    assert "schemas/planted.py:1" in told


def test_importing_a_room_by_its_folders_name_is_seen(checkout: Path) -> None:
    with planted(checkout, {"examples/planted.py": "from schemas.errors import MagnetarError\n"}):
        told = check(checkout, "lint")
    assert "examples/planted.py:1:1: TID251" in told


@pytest.mark.parametrize(("room", "statement"), FORBIDDEN_IMPORTS)
def test_a_forbidden_import_is_seen(checkout: Path, room: str, statement: str) -> None:
    with planted(checkout, {f"{room}/planted.py": statement + "\n"}):
        told = check(checkout, "imports")
    assert f"magnetar.{room}.planted ->" in " ".join(told.split())


@pytest.mark.parametrize(
    "text",
    [
        "[A page](nothing.md)",
        "[A heading](glossary.md#nothing)",
        "::: magnetar.Nothing",
    ],
)
def test_docs_that_lead_nowhere_are_seen(checkout: Path, text: str) -> None:
    with planted(checkout, {"docs/planted.md": f"# Planted\n\n{text}\n"}):
        told = check(checkout, "docs")
    assert "planted.md" in told or "magnetar.Nothing" in told
