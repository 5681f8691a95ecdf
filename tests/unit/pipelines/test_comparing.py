"""What `dev` says behind a save: of a sample first, its commands and then its rows, and then of all."""

import sys
import time

import pytest
from magnetar.pipelines.comparing import NOTHING_TO_SWAP, Comparing

DIFF = """
import sys
commands, rows, of_all = {commands!r}, {rows!r}, {of_all!r}
said = commands if "--commands" in sys.argv else rows if "--tables" in sys.argv else of_all
if "--sample" in sys.argv:
    print("A sample: of each aggregate, the first 2,000 commits.\\n")
print(said)
sys.exit(said != "Nothing differs.")
"""
SAME = "Nothing differs."


def said(commands: str, rows: str, of_all: str, *, times: int) -> list[str]:
    """All that comes of one save, which is to be so much."""
    comparing = Comparing([sys.executable, "-c", DIFF.format(commands=commands, rows=rows, of_all=of_all)])
    comparing.begin()
    found: list[str] = []
    deadline = time.monotonic() + 60
    while len(found) < times:
        assert time.monotonic() < deadline
        if (text := comparing.step()) is not None:
            found.append(text)
    comparing.close()
    return found


def test_the_commands_of_the_sample_come_before_its_rows() -> None:
    commands, rows, _ = said("Ticket: 21 commands", "Board: 3 changed", "Ticket: 40 commands", times=3)
    assert commands.endswith("the first 2,000 commits.\n\nTicket: 21 commands")
    assert rows.endswith("the first 2,000 commits.\n\nBoard: 3 changed")


def test_a_difference_that_the_sample_has_shown_is_not_shown_again() -> None:
    *_, whole = said("Ticket: 21 commands", "Board: 3 changed", "Ticket: 21 commands\n\nBoard: 3 changed", times=3)
    assert whole == "magnetar dev: of all that is recorded, as of the sample."


def test_that_no_table_differs_is_said_also_of_what_the_sample_has_shown() -> None:
    _, whole = said("Ticket: 21 commands", SAME, f"Ticket: 21 commands\n\n{NOTHING_TO_SWAP}", times=2)
    assert whole == f"magnetar dev: of all that is recorded, as of the sample.\n{NOTHING_TO_SWAP}"


def test_what_differs_in_all_and_not_in_the_sample_is_shown() -> None:
    sample, whole = said("Ticket: 21 commands", SAME, "Ticket: 40 commands", times=2)
    assert sample.endswith("Ticket: 21 commands")
    assert whole == "magnetar dev: this code makes something else of what is recorded.\nTicket: 40 commands"


def test_of_a_save_that_changes_nothing_it_is_said_of_a_sample_first() -> None:
    assert said(SAME, SAME, SAME, times=2) == [
        "magnetar dev: of a sample, this code makes the same. All that is recorded is being compared.",
        "magnetar dev: this code makes the same of what is recorded.",
    ]


def test_what_differs_behind_the_sample_is_shown() -> None:
    _, whole = said(SAME, SAME, "Ticket: 40 commands", times=2)
    assert whole == "magnetar dev: this code makes something else of what is recorded.\nTicket: 40 commands"


@pytest.mark.parametrize("code", [1, 2])  # 1 is also what an interpreter says of an error that nobody caught
def test_why_nothing_could_be_compared_is_said_once(code: int) -> None:
    failing = f"import sys; print('Disk full: mend it.', file=sys.stderr); sys.exit({code})"
    comparing = Comparing([sys.executable, "-c", failing])
    comparing.begin()
    found: list[str] = []
    deadline = time.monotonic() + 60
    while not found:
        assert time.monotonic() < deadline
        found += filter(None, [comparing.step()])
    comparing.close()
    assert found == ["magnetar dev: what this code makes of what is recorded was not found out.\nDisk full: mend it."]
