"""docs/faults.md: each fault names the tests that tried it on each log, or says why it cannot happen there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)`")
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "faults.md").read_text()


def rows(page: str) -> list[list[str]]:
    """The table's rows: the fault, and a cell for each log."""
    _, _, *found = ([cell.strip() for cell in row.split("|")] for row in ROW.findall(page))
    return found


def wrong(page: str) -> list[str]:
    """The cells in which neither tests nor a reason stand, and nothing else."""
    found = []
    for fault, *logs in rows(page):
        found += [] if len(logs) == 2 else [f"{fault}: {len(logs)} cells"]
        found += [cell for cell in logs if NAMED.sub("", cell).strip() or not cell if not re.match(r"none: \w", cell)]
    return found


def is_there(path: str, names: list[str]) -> bool:
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text()).body
    for name in names:
        found = [each for each in body if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == name]
        if not found:
            return False
        body = found[0].body
    return True


def test_each_fault_was_tried_on_each_log_or_cannot_happen_there() -> None:
    assert len(rows(PAGE)) > 20
    assert wrong(PAGE) == []


@pytest.mark.parametrize("name", sorted({"::".join(found) for found in NAMED.findall(PAGE)}))
def test_the_named_test_exists(name: str) -> None:
    path, *names = name.split("::")
    assert is_there(path, names)


@pytest.mark.parametrize(
    "row", ["| a | | none: no |", "| a | by hand | none: no |", "| a | none: no |", "| a | none: | none: no |"]
)
def test_a_cell_without_a_test_or_a_reason_is_found(row: str) -> None:
    assert wrong(f"| fault | x | y |\n|---|---|---|\n| a | `tests/a.py::test_a` | none: no |\n{row}\n")
