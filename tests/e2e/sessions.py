"""Plays the terminal sessions of a page: each `$ magnetar …` line of its console blocks, in order.

`python -m tests.e2e.sessions docs/command-line.md` writes down what the commands print now.
"""

import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Shell

BLOCK = re.compile(r"^```(console|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = (
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?", "<time>"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\b\S+-\d+-[0-9a-f]{6}\b", "<worker>"),
    (r" +$", ""),
)
"""What differs from run to run."""
ONCE = {"ask", "drop", "new", "retry"}
"""What changes something; anything else is tried until it prints what it should."""


def steady(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text


def steps(block: str) -> list[tuple[str, str]]:
    """Each command of a console block, with what stands below it."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def play(page: str, run: Callable[[str, str], str], start: Callable[[str], None]) -> str:
    """The page with the outputs that there are now. `run` gets a command and the output that is expected of it."""

    def played(block: re.Match[str]) -> str:
        language, text = block[1], block[2]
        if language == "bash":
            start(text.strip())
            return block[0]
        shown = [f"$ {command}\n{run(command, output)}" for command, output in steps(text)]
        return f"```console\n{''.join(shown)}```"

    return BLOCK.sub(played, page)


def play_in(shell: Shell, page: str) -> str:
    """Play a page in a terminal; an output that is not there yet is waited for."""

    def run(command: str, expected: str) -> str:
        words = shlex.split(command)
        if words[0] == "cd":
            shell.folder /= words[1]
            return ""
        printed = [""]

        def is_there() -> bool:
            ran = shell.run(*words[1:])
            printed[0] = "\n".join(line.rstrip() for line in (ran.stdout + ran.stderr).splitlines()) + "\n"
            return not expected or steady(printed[0]) == steady(expected)

        if ONCE.isdisjoint(words[1:4]):
            shell.eventually(is_there, f"{command} prints\n{expected}")
        else:
            is_there()
        return printed[0]

    def start(command: str) -> None:
        shell.start(*shlex.split(command)[1:])
        shell.eventually(lambda: "answered" in (shell.folder / "dev.log").read_text(), "queries are answered")

    return play(page, run, start)


def without_outputs(page: str) -> str:
    """The page with nothing below its commands."""
    return BLOCK.sub(_without_outputs, page)


def _without_outputs(block: re.Match[str]) -> str:
    return block[0] if block[1] == "bash" else re.sub(r"^(?!\$ |```).*\n", "", block[0], flags=re.MULTILINE)


def main(path: Path) -> None:
    """Write down what the page's commands print now."""
    with tempfile.TemporaryDirectory() as folder:
        shell = Shell(Path(folder))
        try:
            path.write_text(play_in(shell, without_outputs(path.read_text())))
        finally:
            shell.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
