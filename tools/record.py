"""Plays the main flows on a terminal of a fixed width, and writes what it shows: `python -P tools/record.py`.

`docs/recordings.md` is what it writes; a test plays it again and compares.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ROOT / "docs" / "recordings.md"
COLUMNS, LINES = 120, 40
DEADLINE_SECONDS = 120.0

DEV = "magnetar dev shop.pipeline"
ORDER = "magnetar {} shop.pipeline Order 42"
OLD = "018a0000-0000-7000-8000-000000000001"
"""An id that was made in 2023: a command that comes under it now could be a repeat, and is parked."""

FLOWS = (
    (
        (ORDER.format("send") + """ Buy '{"sku": "tea", "pieces": 2}'""",),
        (ORDER.format("ask") + " Ship",),
        (ORDER.format("ask") + """ Buy '{"sku": "cup", "pieces": 0}'""",),
    ),
    (
        ('magnetar query "SELECT sku, sold FROM shop.best_sellers"', "tea"),
        ('magnetar query "SELECT outcome, count() AS n FROM shop.commits GROUP BY outcome" --format csv', "rejected"),
        (ORDER.format("history"),),
        (ORDER.format("history") + " --version 1",),
    ),
    (
        (ORDER.format("ask") + f""" Buy '{{"sku": "cup", "pieces": 6}}' --command-id {OLD}""",),
        ("magnetar parked shop.pipeline",),
        (f"magnetar parked shop.pipeline show {OLD}",),
        (f"magnetar parked shop.pipeline retry {OLD}",),
    ),
    (("magnetar rebuild shop.pipeline",), ("magnetar rebuild shop.pipeline --status",)),
    (
        (
            "magnetar status shop.pipeline",
            r"Order +16 +5 +0 +0 (.|\n)*best_sellers +Order +2 +5 +0(.|\n)*mirror .* 5 +0",
        ),
        ("magnetar topology shop.pipeline",),
    ),
)
"""By section of the page, its commands, each with what it must show where it has to wait for that."""

PAGE = """# Recordings

What the main flows show on a terminal of {columns} columns. `make recordings` plays them and writes this page. A test
plays them again, and compares all but ids, times, ports and processes.

## A new project, and running it

{}
## In a second terminal: commands

{}
## What became of them

{}
## A parked command

The id of this command was made in 2023. It could be a repeat of one that nobody remembers any more, so it is not
decided before somebody has looked at it.

{}
## New tables from the log

{}
## How it is doing, and how it is wired

{}
## The first terminal, meanwhile

{}"""

_CONTROL = re.compile(r"\x1b\[(?P<numbers>[0-9;?]*)(?P<letter>[A-Za-z])")


class Screen:
    """The lines that a terminal shows, of what is written to it: as much of that as Rich uses."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0
        self._rest = ""

    def write(self, text: str) -> None:
        """Show it. What is cut off in the middle of a control sequence is shown with the next text."""
        text, at = self._rest + text, 0
        while at < len(text):
            if text[at] == "\x1b":
                control = _CONTROL.match(text, at)
                if control is None:
                    break
                self._obey(control["letter"], control["numbers"])
                at = control.end()
            else:
                self._put(text[at])
                at += 1
        self._rest = text[at:]

    def _obey(self, letter: str, numbers: str) -> None:
        if letter == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif letter == "K":
            self.lines[self._row] = "" if numbers == "2" else self.lines[self._row][: self._column]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
            if self._row == len(self.lines):
                self.lines.append("")
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.screen = Screen()
        mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._fd = mine
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def read_until(self, pattern: str) -> str:
        """What it shows as soon as that is in it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not re.search(pattern, str(self.screen)):
            if time.monotonic() > deadline or not self._read():
                raise TimeoutError(f"it ended, or was silent for too long, and shows:\n{self.screen}")
        return str(self.screen)

    def end(self) -> str:
        """All that it shows until it ends by itself."""
        while self._fd >= 0 and self._read():
            pass
        self._process.wait(DEADLINE_SECONDS)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return str(self.screen)

    def stop(self) -> str:
        """Press Ctrl-C; all that it shows."""
        if self._process.poll() is None:
            self._process.send_signal(2)
        return self.end()

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 1.0)[0]:
            return True
        try:
            read = os.read(self._fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.screen.write(read.decode())
        return bool(read)


class Stage:
    """A folder, the terminals in it, and how what they show is written down."""

    def __init__(self, folder: Path) -> None:
        self._home = self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAGNETAR_")}
        self._environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "TERM": "xterm",
            "COLUMNS": str(COLUMNS),
            "LINES": str(LINES),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def go_to(self, name: str) -> str:
        """`cd`."""
        self._folder /= name
        return f"$ cd {name}"

    def start(self, command: str) -> Terminal:
        """Begin a command on a terminal of its own."""
        return Terminal(["bash", "-c", f"exec {command}"], self._folder, self._environment)

    def run(self, command: str, until: str = "") -> str:
        """A command with what it shows; one that only looks is repeated until it shows what it should."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not re.search(until, shown := self.start(command).end()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command} shows:\n{shown}")
        return f"$ {command}\n{shown}"

    def written(self, shown: Sequence[str]) -> str:
        """As it stands on the page: at nobody's place in particular."""
        text = "\n".join(shown).replace(str(self._home), "/home/ann").replace(socket.gethostname(), "laptop")
        return f"```text\n{text}\n```\n"


def recorded(folder: Path) -> str:
    """The page, played in an empty folder."""
    stage = Stage(folder)
    begun = [stage.run("magnetar new shop"), stage.go_to("shop"), f"$ {DEV}"]
    dev = stage.start(DEV)
    try:
        begun.append(dev.read_until(r"queries are answered(.|\n)*Order +0 "))
        parts = [stage.written(begun), *(stage.written([stage.run(*step) for step in flow]) for flow in FLOWS)]
        busy = [f"$ {DEV}", dev.read_until(r"Order +0 +3 +0 +1 "), "^C", dev.stop().splitlines()[-1]]
    finally:
        dev.stop()
    return PAGE.format(*parts, stage.written(busy), columns=COLUMNS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        Path(sys.argv[1] if len(sys.argv) > 1 else WRITTEN).write_text(recorded(Path(home)))
