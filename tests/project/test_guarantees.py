"""Every sentence of docs/guarantees.md that promises something names the tests that attack it, and they exist."""

import re
from collections.abc import Iterator

import pytest

from tests.project.naming import NAMED, ROOT, check_exists, named_in


def promises(page: str) -> Iterator[str]:
    """The text between the headings of the promises, item by item; what stands elsewhere promises nothing."""
    promised = page.partition("# What is not promised")[0]
    for section in promised.split("\n## ")[1:]:
        _, _, body = section.partition("\n")
        yield from (" ".join(item.split()) for item in re.split(r"\n(?=\S)", body) if item.strip())


def unattacked(page: str) -> list[str]:
    """The sentences that no test stands behind, and whatever is no item of a list."""
    found = []
    for item in promises(page):
        sentences = [part.strip(" ,") for part in NAMED.sub("\0", item.removeprefix("- ")).split("\0")]
        *attacked, rest = sentences
        found += [s for s in attacked if re.search(r"\.\s+[A-Z]", s)]
        found += [rest] if rest else []
        found += [] if item.startswith("- ") and attacked and attacked[0].endswith(".") else [item]
    return found


PAGE = (ROOT / "docs" / "guarantees.md").read_text()


def test_every_promise_names_its_test() -> None:
    assert len(list(promises(PAGE))) > 20
    assert unattacked(PAGE) == []


@pytest.mark.parametrize("name", named_in(PAGE))
def test_the_named_test_exists(name: str) -> None:
    check_exists(name)


@pytest.mark.parametrize(
    "promise",
    [
        "- It works.",
        "- It works. It is fast. `tests/a.py::test_a`",
        "- It works. `tests/a.py::test_a` It is fast.",
        "- `tests/a.py::test_a`",
        "It works. `tests/a.py::test_a`",
        "- It works. `tests/a.py::a`",
    ],
)
def test_a_promise_without_its_test_is_found(promise: str) -> None:
    assert unattacked(f"# P\n\n## S\n\n- Fine. `tests/a.py::test_a` `tests/b.py::test_b`\n{promise}\n")
