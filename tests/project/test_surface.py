"""The public names, pinned to surface.txt, so that a change is seen in review. `make surface` writes the file."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FRONT_DOORS = (
    "magnetar",
    "magnetar.aggregates",
    "magnetar.pipelines",
    "magnetar.projections",
    "magnetar.schemas",
    "magnetar.testing",
)
HEAVY = ("chdb", "clickhouse_connect", "fastavro", "httpx", "msgspec", "pulsar", "pydantic", "rich", "typer")


def surface() -> str:
    return "".join(f"{door}.{name}\n" for door in FRONT_DOORS for name in import_module(door).__all__)


def test_the_public_names_are_the_committed_ones() -> None:
    assert surface() == (HERE / "surface.txt").read_text(), "if the change is intended: `make surface`"


@pytest.mark.parametrize("door", FRONT_DOORS)
def test_every_name_exists_once(door: str) -> None:
    module = import_module(door)
    assert len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_what_type_checkers_see_at_the_front_door_is_what_is_imported() -> None:
    door = import_module("magnetar")
    tree = ast.parse(Path(str(door.__file__)).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        name.name: f"{node.module}" for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    imported = {name: f"magnetar.{room}" for name, room in door._HOME_OF.items()}
    assert seen == imported
    assert sorted(imported) == sorted(door.__all__)


def test_the_front_door_imports_nothing_until_a_name_is_used() -> None:
    program = f"""
import sys
before = set(sys.modules)
import magnetar
heavy = {{name for name in set(sys.modules) - before if name.split(".")[0] in {HEAVY} or name.startswith("magnetar.")}}
assert not heavy, heavy
assert magnetar.Event is __import__("magnetar.schemas").schemas.Event
assert "Pipeline" in dir(magnetar)
assert "magnetar.pipelines" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True, timeout=60)


ENGINES = (
    "asyncio", "chdb", "clickhouse_connect", "httpx", "pulsar", "pydantic", "pydantic_settings", "rich", "sqlglot",
    "starlette", "structlog", "typer", "uvicorn",
)  # fmt: skip


def engines_after(statement: str) -> set[str]:
    """The heavy packages that are there when a fresh process has run a statement."""
    program = f"""
import sys
sys.path.append({str(HERE.parents[1])!r})
before = set(sys.modules)
{statement}
print(*{{name.split(".")[0] for name in set(sys.modules) - before}} & set({ENGINES}))
"""
    command = [sys.executable, "-P", "-c", program]
    return set(subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import magnetar",
        "from magnetar import Aggregate, Command, Event, Meta, Rejection, State",
        "from magnetar import Pipeline, Sql",
        "from magnetar.testing import given",
        "import examples.flights.pipeline",
    ],
)
def test_what_declares_and_tests_a_domain_waits_for_no_engine(statement: str) -> None:
    assert engines_after(statement) == set()


def test_the_command_line_waits_for_no_engine_before_it_knows_what_is_wanted() -> None:
    assert engines_after("import magnetar.pipelines.cli.app") == {"typer"}


def test_the_engines_would_be_seen() -> None:
    assert {"asyncio", "pydantic"} <= engines_after("from magnetar import SyncClient")


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'magnetar' has no attribute 'Banana'"):
        _ = import_module("magnetar").Banana


if __name__ == "__main__":
    (HERE / "surface.txt").write_text(surface())
