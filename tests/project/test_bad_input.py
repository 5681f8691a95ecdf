"""docs/bad-input.md: each row has a command, words with an exit code, and tests in whose sources the words stand."""

import re
from typing import NamedTuple

import pytest

from tests.project.naming import ROOT, check_exists, named_in

PAGE = (ROOT / "docs" / "bad-input.md").read_text()
EXIT_CODES = {"0", "1", "2", "3", "10", "11", "130"}


class Row(NamedTuple):
    """One row of the table."""

    wrong: str
    command: str
    says: str
    exit_code: str
    tests: str


def rows(page: str) -> list[Row]:
    """The table's rows, without its head."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [Row(*(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])) for line in lines[2:]]


def wrong_with(row: Row) -> list[str]:
    """What the row lacks."""
    found = []
    if not re.search("`[^`]+`", row.command):
        found.append("no command")
    if not set(row.exit_code.split(", ")) <= EXIT_CODES:
        found.append("no exit code")
    if not re.fullmatch(r"`tests/\S+`( `tests/\S+`)*", row.tests) or not named_in(row.tests):
        found.append("no test")
    sources = " ".join((ROOT / name.split("::")[0]).read_text() for name in named_in(row.tests))
    for words in re.findall("`([^`]+)`", row.says):
        missing = [part for part in words.split("…") if part.strip() and part.strip() not in sources.replace("\\", "")]
        found += [f"no test says {part!r}" for part in missing]
    return found


@pytest.mark.parametrize("row", rows(PAGE), ids=lambda row: row.wrong)
def test_each_row_has_its_command_its_exit_code_and_its_tests_whose_words_it_has(row: Row) -> None:
    assert wrong_with(row) == []


@pytest.mark.parametrize("name", named_in(PAGE))
def test_the_named_test_exists(name: str) -> None:
    check_exists(name)


def test_there_is_one_table_and_nothing_in_it_twice() -> None:
    assert len(re.findall(r"^\|---", PAGE, re.MULTILINE)) == 1
    assert len({row.wrong for row in rows(PAGE)}) == len(rows(PAGE)) > 60


@pytest.mark.parametrize(
    "row",
    [
        "| a | b | c | 2 | `tests/e2e/test_cli.py::test_a` |",
        "| a | `b` | c | 7 | `tests/e2e/test_cli.py::test_a` |",
        "| a | `b` | c | 2 | nobody |",
        "| a | `b` | `nobody says this` | 2 | `tests/e2e/test_cli.py::test_a` |",
    ],
)
def test_a_row_that_lacks_something_is_found(row: str) -> None:
    (found,) = rows(f"| head |\n|---|\n{row}\n")
    assert len(wrong_with(found)) == 1
