"""What `dev` says behind a save: of a sample first, and then of all."""

import sys
import time

from magnetar.pipelines.comparing import Comparing

DIFF = """
import sys
if "--sample" in sys.argv:
    print("A sample: of each aggregate, the first 2,000 commits.\\n")
print({of_sample!r} if "--sample" in sys.argv else {of_all!r})
sys.exit({of_all!r} != "Nothing differs.")
"""


def said(of_sample: str, of_all: str, *, times: int) -> list[str]:
    """All that comes of one save, which is to be so much."""
    comparing = Comparing([sys.executable, "-c", DIFF.format(of_sample=of_sample, of_all=of_all)])
    comparing.begin()
    found: list[str] = []
    deadline = time.monotonic() + 60
    while len(found) < times:
        assert time.monotonic() < deadline
        if (text := comparing.step()) is not None:
            found.append(text)
    comparing.close()
    return found


def test_a_difference_that_the_sample_has_shown_is_not_shown_again() -> None:
    sample, whole = said("Ticket: 21 commands", "Ticket: 21 commands", times=2)
    assert sample.endswith("the first 2,000 commits.\n\nTicket: 21 commands")
    assert whole == "magnetar dev: of all that is recorded, as of the sample."


def test_what_differs_in_all_and_not_in_the_sample_is_shown() -> None:
    sample, whole = said("Ticket: 21 commands", "Ticket: 40 commands", times=2)
    assert sample.endswith("Ticket: 21 commands")
    assert whole == "magnetar dev: this code makes something else of what is recorded.\nTicket: 40 commands"


def test_of_a_save_that_changes_nothing_one_line_is_said() -> None:
    (whole,) = said("Nothing differs.", "Nothing differs.", times=1)
    assert whole == "magnetar dev: this code makes the same of what is recorded."
