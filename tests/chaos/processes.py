"""The parts under test as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from magnetar.projections.query import ENDPOINT_FILE

ROOT = Path(__file__).resolve().parents[2]
LONG = "MAGNETAR_TEST_SOAK" in os.environ
"""Whether the tests run at length."""

DEADLINE_SECONDS = 240.0
"""How long anything may take: far more than it needs, since the machine may be busy."""


class Part:
    """One process. `output` is all that it wrote, over all its lives."""

    module = "tests.chaos.part"

    def __init__(
        self, folder: Path, role: str, *arguments: str, name: str = "", settings: Mapping[str, str] | None = None
    ) -> None:
        self.role = role
        self.name = name or role
        self.lives = 0
        self.data = folder / "data"
        self._arguments = [role, str(self.data), *arguments]
        if name:
            self._arguments += ["--name", name]
        self._settings = settings or {}
        self._file = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._file.read_text() if self._file.exists() else ""

    @property
    def exit_code(self) -> int | None:
        """How it ended, if it has."""
        return None if self._process is None else self._process.poll()

    def start(self, *more: str) -> None:
        """Start it, or start it again."""
        self._close()
        self.lives += 1
        command = [sys.executable, "-m", self.module, *self._arguments, *more]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAGNETAR_")}
        with self._file.open("a") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**clean, **self._settings},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def is_dead(self) -> bool:
        """Whether it was ended by a kill. Fails if it ended by itself."""
        code = self.exit_code
        if code is not None and code != -signal.SIGKILL:
            pytest.fail(f"{self.name} ended with exit code {code}:\n{self.output[-4000:]}")
        return code is not None

    def is_frozen(self) -> bool:
        """Whether it was stopped by SIGSTOP, and is dead to the world."""
        self.is_dead()
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    def send(self, sent: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(sent)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end_input(self) -> None:
        """Tell it to finish what it has begun."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def stop(self) -> None:
        """Let it finish what it has begun, and end; a frozen one is killed."""
        if self._process is not None and self._process.poll() is None:
            if self.is_frozen():
                self._process.kill()
            elif self._process.stdin is not None:
                self._process.stdin.close()
            try:
                self._process.wait(120)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def answers(projector: Part) -> bool:
    """Whether this very process answers queries: otherwise a query would open the engine here."""
    try:
        return bool(json.loads((projector.data / ENDPOINT_FILE).read_text())["pid"] == projector.pid)
    except (OSError, ValueError):
        return False


@contextmanager
def parts(*them: Part) -> Iterator[None]:
    """End them, whatever happens."""
    try:
        yield
    finally:
        for each in them:
            each.stop()


def eventually(holds: Callable[[], object], what: str, *them: Part, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until something holds; fail with the parts' output if it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            outputs = "\n".join(f"--- {each.name}\n{each.output[-4000:]}" for each in them)
            pytest.fail(f"not within {seconds:g} s: {what}\n{outputs}")
        time.sleep(0.02)  # what other processes and threads come to can only be looked at again
