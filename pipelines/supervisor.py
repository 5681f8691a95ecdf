"""The supervisor of `magnetar dev`: one operating-system process per part, restarted when it dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Final

import structlog

from .clock import Clock
from .logging import LOG_STYLE

_BACKOFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
"""The pauses before a part that died is started again: a part that cannot start must not burn a core."""

_STEADY_SECONDS: Final = 10.0
"""A part that ran for so long starts over with the shortest pause."""

REFUSED: Final = 78
"""What a supervised part exits with if the pipeline cannot run as it is declared: starting it again would not help."""

_STOP_TIMEOUT_SECONDS: Final = 10.0


class Part:
    """One supervised process.

    With `say`, what it writes to standard error comes through `say`, line by line, on a thread.
    """

    def __init__(
        self, role: str, arguments: Sequence[str], clock: Clock, say: Callable[[str], None] | None = None
    ) -> None:
        self.role = role
        self._say = say
        self._arguments = list(arguments)
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._deaths = 0
        self.exit_code: int | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return self._process.pid if self._process else None

    @property
    def is_refused(self) -> bool:
        """Whether it cannot run as it is, and waits to be stopped and started with something else."""
        return self.exit_code == REFUSED and self._process is None

    @property
    def failures(self) -> int:
        """How often in a row the part ended soon after its start."""
        return self._deaths

    def look_after(self) -> None:
        """Start the process if it should run and does not."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._died(code)
        if self._process is None and not self.is_refused and self._clock.monotonic() >= self._start_at:
            self._started_at = self._clock.monotonic()
            self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        environment = os.environ.copy() if self._say is None else {**os.environ, LOG_STYLE: "people"}
        process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stderr=None if self._say is None else subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C reaches the supervisor alone, which lets its parts finish
        )
        if self._say is not None and process.stderr is not None:
            threading.Thread(target=_pass_on, args=(process.stderr, self._say), daemon=True).start()
        return process

    def _died(self, code: int) -> None:
        ran_seconds = self._clock.monotonic() - self._started_at
        self._deaths = 1 if ran_seconds > _STEADY_SECONDS else self._deaths + 1
        pause = _BACKOFF_SECONDS[min(self._deaths, len(_BACKOFF_SECONDS)) - 1]
        self._start_at = self._clock.monotonic() + pause
        self.exit_code = code
        self._close()
        if code == REFUSED:
            return
        structlog.get_logger("magnetar.dev").warning(
            "process ended", role=self.role, exit_code=code, restarts_in_seconds=pause
        )

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def ask_to_stop(self) -> None:
        """Close the process's standard input: it finishes what it has begun, and ends."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def stop(self) -> None:
        """Wait until the process has ended, and end it if it takes too long. It may be started again."""
        self.exit_code = None
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()


class Supervisor:
    """Keeps the parts of one pipeline running."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    @property
    def refused(self) -> list[str]:
        """The roles of the parts that cannot run as they are."""
        return [part.role for part in self.parts if part.is_refused]

    def look_after(self) -> None:
        """Start what is not running; call it a few times a second."""
        for part in self.parts:
            part.look_after()

    def stop(self) -> None:
        """Let all parts finish what they have begun, and end them."""
        for part in self.parts:
            part.ask_to_stop()
        for part in self.parts:
            part.stop()


def _pass_on(lines: IO[bytes], say: Callable[[str], None]) -> None:
    with lines:
        for line in lines:
            say(line.decode(errors="replace").rstrip())


def cli_arguments(*arguments: str) -> list[str]:
    """The command line of `magnetar …` in this Python."""
    return [sys.executable, "-m", "magnetar.pipelines.cli", *arguments]


def part_arguments(role: str, target: str) -> list[str]:
    """The command line of one part's process."""
    return cli_arguments("run", target, "--role", role, "--supervised")
