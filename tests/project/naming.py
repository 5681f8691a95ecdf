"""Tests that a page of the docs names: `tests/….py::test_…`."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)`")


def named_in(page: str) -> list[str]:
    """The names of the tests that stand in the text, each once."""
    return sorted({"::".join(found) for found in NAMED.findall(page)})


def check_exists(name: str) -> None:
    """Raises an error if there is no such test."""
    path, *names = name.split("::")
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text()).body
    for each in names:
        (definition,) = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == each
        ]
        body = definition.body
