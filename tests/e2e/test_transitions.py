"""`magnetar transitions`, over the domain of docs/testing.md; that page itself is run by tests/docs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, files, parts
from tests.e2e.conftest import DEADLINE_SECONDS, Shell

PAGE = ROOT / "docs" / "testing.md"


@pytest.fixture
def library(shell: Shell) -> Shell:
    """A terminal in a folder with the page's two modules."""
    for name, text in files(PAGE).items():
        (shell.folder / name).write_text(text)
    return shell


def test_evidence_from_another_run_makes_the_same_table(library: Shell) -> None:
    file = library.folder / "evidence.jsonl"
    environment = {**library.environment, "MAGNETAR_EVIDENCE": str(file)}
    command = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider"]
    subprocess.run(
        command, cwd=library.folder, env=environment, check=True, capture_output=True, timeout=DEADLINE_SECONDS
    )
    ran = library.run("transitions", "library", "Book", "--evidence", "evidence.jsonl", "--json")
    answer = json.loads(ran.stdout)
    assert answer["untested"] == [{"state": "Gone", "command": "TakeBack"}]
    assert {"state": "Away", "command": "Lend", "outcome": "nothing", "types": []} in answer["seen"]


def test_a_failing_test_says_what_the_page_says(library: Shell) -> None:
    test = library.folder / "test_library.py"
    test.write_text(test.read_text().replace('.then(NotThere("anna"))', '.then(NotThere("ben"))'))
    ran = library.run("transitions", "library", "Book")
    assert ran.returncode == 2
    said = re.sub(r"^E +(?=\S)", "  ", ran.stderr, flags=re.MULTILINE)
    (shown,) = (part.text for part in parts(PAGE) if isinstance(part, Block) and part.language == "text")
    for line in shown.splitlines():
        assert line.strip() in said
    assert "Mend them first." in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["library", "Novel"], "has no aggregate 'Novel'. It has: Book."),
        (["library", "Book", "--evidence", "none.jsonl"], "none.jsonl is no evidence"),
        (["library", "Book", "--tests", "library.py"], "pytest has found no tests here"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(library: Shell, arguments: list[str], words: str) -> None:
    ran = library.run("transitions", *arguments)
    assert ran.returncode == 2
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_flights_transitions_are_told(shell: Shell) -> None:
    shell.folder = ROOT
    ran = shell.run(
        "transitions", "examples.flights.pipeline", "Flight", "--tests", "tests/unit/examples/test_flight.py"
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"│ Airborne +│ ✗ AlreadyScheduled +│ ✗ AlreadyDeparted +│ Landed +│ Diverted", ran.stdout)
    assert "20 of 20 pairs are tested." in ran.stdout
