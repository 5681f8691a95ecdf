"""Running the command line as its users do: as processes, in a folder of their own."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.readme import write_shop

MAGNETAR = Path(sys.executable).with_name("magnetar")
DEADLINE_SECONDS = 240.0
"""How long anything may take: far more than it needs, since the machine may be busy."""


class Shell:
    """One terminal in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sizes = ("COLUMNS", "LINES")  # pytest's workers set them, and Rich believes them more than a terminal
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MAGNETAR_") and k not in sizes}
        self.started: list[subprocess.Popen[str]] = []
        self.within: list[str] = []
        """What stands before every command."""

    def run(self, *arguments: str, timeout: float = DEADLINE_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run `magnetar …` to its end."""
        return subprocess.run(
            [*self.within, MAGNETAR, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `magnetar …`, and end it when the test is over."""
        with (self.folder / f"{arguments[0]}.log").open("w") as output:
            process = subprocess.Popen(
                [*self.within, MAGNETAR, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def eventually(self, holds: Callable[[], bool], what: str, timeout: float = DEADLINE_SECONDS) -> None:
        """Wait until something holds; fail with the processes' output if it does not."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {p.name}\n{p.read_text()}" for p in self.folder.glob("*.log"))
                pytest.fail(f"not within {timeout:g} s: {what}\n{logs}")
            time.sleep(0.1)

    def close(self) -> None:
        """End what was started, as Ctrl-C does."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A terminal in an empty folder."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def start_dev(shell: Shell, target: str = "shop") -> None:
    """`magnetar dev`, until it is up."""
    shell.start("dev", target)
    shell.eventually(lambda: "Ctrl-C stops it" in (shell.folder / "dev.log").read_text(), "magnetar dev is up")


@pytest.fixture
def shop(shell: Shell) -> Shell:
    """A terminal in a folder with the README's pipeline."""
    write_shop(shell.folder)
    return shell


class Terminal:
    """A command on a terminal of its own, 60 columns wide, as a person sees it."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))  # before anything looks
            os.chdir(shell.folder)
            os.execve(MAGNETAR, ["magnetar", *arguments], {**shell.environment, "TERM": "xterm"})
        self.shown = ""

    def read_until(self, words: str, timeout: float = DEADLINE_SECONDS) -> None:
        """Wait until the words are on the screen."""
        deadline = time.monotonic() + timeout
        while words not in self.shown:
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {words!r}\n{self.shown}"
            assert self._read(), f"it ended without {words!r}\n{self.shown}"

    def press_ctrl_c(self) -> None:
        """As the keyboard does: the terminal interrupts all processes on it."""
        os.write(self._fd, b"\x03")

    def wait(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 1.0)[0]:
            return True
        try:
            read = os.read(self._fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read.decode(errors="replace"))
        return bool(read)
