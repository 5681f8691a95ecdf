"""The terminal sessions in the docs print what stands there."""

from pathlib import Path

from tests.e2e.conftest import Shell
from tests.e2e.sessions import play_in, steady

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"


def test_the_tour_of_the_command_line_prints_what_stands_there(shell: Shell) -> None:
    page = PAGE.read_text()
    assert steady(play_in(shell, page)) == steady(page)
