"""A terminal of a fixed width, and what commands show on it: what the recordings of the docs are played on."""

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
import termios
import time
from collections.abc import Sequence
from pathlib import Path

COLUMNS, LINES = 120, 40
DEADLINE_SECONDS = 300.0
"""With the machine to itself, the slowest command takes a tenth of that."""

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

    def read_until(self, pattern: str, *, behind: int = 0) -> str:
        """What it shows behind so many characters, as soon as that is in it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not re.search(pattern, str(self.screen)[behind:]):
            if time.monotonic() > deadline or not self._read():
                raise TimeoutError(f"it ended, or was silent for too long, and shows:\n{self.screen}")
        return str(self.screen)[behind:]

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

    def export(self, name: str, value: str) -> str:
        """`export`."""
        self._environment[name] = value
        return f"$ export {name}={value}"

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

    def written(self, shown: Sequence[str], language: str = "text") -> str:
        """As it stands on the page: at nobody's place in particular."""
        text = "\n".join(shown).replace(str(self._home), "/home/ann").replace(socket.gethostname(), "laptop")
        return f"```{language}\n{text}\n```\n"
