"""Writes down what the commands of a page print now: `python -m tests.docs.record docs/errors.md`.

What the page says stays where it fits. Read the difference before you commit it.
"""

import re
import sys
import tempfile
from pathlib import Path

from tests.docs.pages import Block, commands
from tests.docs.reading import Reader, fits

CONSOLE = re.compile(r"(?P<start>^```console\n)(?P<text>.*?)(?P<end>^```$)", re.MULTILINE | re.DOTALL)


class Recorder(Reader):
    """Keeps what is printed and does not fit, instead of failing."""

    looks_seconds = 15.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kept: dict[tuple[int, str], str] = {}
        """By the line of the block, and the command."""

    def judge_command(self, command: str, printed: str, exit_code: int, expected: str, where: str) -> None:
        """Never wrong."""
        if not fits(printed, expected):
            lines = (line.rstrip() for line in printed.splitlines())
            self.kept[int(where.rpartition(":")[2]), command] = "".join(f"{line}\n" for line in lines)


def recorded(page: Path) -> str:
    """The page with what its commands print now."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder))
        try:
            recorder.read(page)
        finally:
            recorder.close()
    return rewritten(page.read_text(), recorder.kept)


def rewritten(text: str, kept: dict[tuple[int, str], str]) -> str:
    """The page's text with what was printed below these commands."""

    def played(found: re.Match[str]) -> str:
        line = text.count("\n", 0, found.start()) + 1
        steps = commands(Block("console", found["text"], line))
        shown = [
            "$ " + command.replace("\n", "\n> ") + "\n" + kept.get((line, command), below) for command, below in steps
        ]
        return f"{found['start']}{''.join(shown)}{found['end']}"

    return CONSOLE.sub(played, text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(recorded(Path(name).resolve()))
