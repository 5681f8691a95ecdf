"""What a save does to history: `magnetar diff` behind `magnetar dev`, of a sample first and then of all.

The commands of the sample come first: deciding them again takes no ClickHouse, which is being started anew meanwhile.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SAMPLE_COMMITS: Final = 2_000
"""So many of each aggregate are replayed at once: less than a second of Python."""

NOTHING_TO_SWAP: Final = "No table differs, so there is nothing to swap."
"""What `magnetar diff` says in the end where only commands would be decided differently."""

_NOT_FOUND_OUT: Final = "magnetar dev: what this code makes of what is recorded was not found out."
_SAME, _DIFFERENT = 0, 1


class Comparing:
    """One comparison at a time, as a process of its own: the next save ends it, and begins another one."""

    def __init__(self, diff: Sequence[str]) -> None:
        """`diff` is the command and its arguments."""
        self._diff = list(diff)
        self._waiting: list[list[str]] = []
        self._shown: set[str] = set()
        """The lines that have been printed of the sample."""
        self._has_differed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="magnetar-")  # a pipe could fill up
        self._printed, self._failed = (Path(self._folder.name, name) for name in ("printed", "failed"))

    def begin(self) -> None:
        """Compare what is saved now."""
        self._end()
        self._shown, self._has_differed = set(), False
        sample = [*self._diff, "--sample", str(SAMPLE_COMMITS)]
        self._waiting = [[*sample, "--commands"], [*sample, "--tables"], self._diff]
        self._start()

    def step(self) -> str | None:
        """What there is to say, if anything; call it a few times a second."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        said, failed = (file.read_text().strip() for file in (self._printed, self._failed))
        is_last = not self._waiting
        is_sampled = len(self._waiting) == 1
        self._has_differed |= code != _SAME
        self._end()
        self._start()
        lines = said.splitlines()
        more = [line for line in lines if line not in self._shown]
        self._shown.update(lines)
        if code == _SAME and is_last:
            return "magnetar dev: this code makes the same of what is recorded."
        if is_sampled and not self._has_differed:
            return "magnetar dev: of a sample, this code makes the same. All that is recorded is being compared."
        if code != _DIFFERENT or not said:  # of a sample that fails nothing is said: all are compared right behind it
            return f"{_NOT_FOUND_OUT}\n{failed}" if is_last else None
        if is_last and set(more) <= {NOTHING_TO_SWAP}:
            return "\n".join(["magnetar dev: of all that is recorded, as of the sample.", *more])
        return f"magnetar dev: this code makes something else of what is recorded.\n{said}"

    def close(self) -> None:
        """End it."""
        self._waiting = []
        self._end()
        self._folder.cleanup()

    def _start(self) -> None:
        if not self._waiting:
            return
        with self._printed.open("w") as printed, self._failed.open("w") as failed:
            self._process = subprocess.Popen(
                self._waiting.pop(0),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=failed,
                process_group=0,  # Ctrl-C is not for it
            )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
