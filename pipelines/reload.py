"""Reload on save: which files a pipeline is made of, and whether what was saved can run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .clock import Clock

LOOK_SECONDS: Final = 0.4
"""The pause between looks at the files. A change counts when the next look finds no further one: editors write in
several steps."""


def source_files(target: str) -> Callable[[], list[Path]]:
    """How to list the Python files that belong to a loaded pipeline.

    The files of its package, with all below; for a module without a package, the Python files beside it.
    """
    module = sys.modules[target.partition(":")[0].partition(".")[0]]
    if hasattr(module, "__path__"):
        folders = [Path(folder) for folder in module.__path__]
        return lambda: sorted(file for folder in folders for file in folder.rglob("*.py"))
    folder = Path(str(module.__file__)).parent
    return lambda: sorted(folder.glob("*.py"))


class Reloader:
    """Watches the files, and tries what was saved in a process of its own before anything running is touched."""

    def __init__(self, files: Callable[[], list[Path]], check: Sequence[str], clock: Clock) -> None:
        self._files = files
        self._check = list(check)
        self._clock = clock
        self._loaded = self._seen = self._look()
        self._looked_at = clock.monotonic()
        self._checking: subprocess.Popen[str] | None = None

    def step(self) -> str | None:
        """Look whether there is something to do; call it a few times a second.

        Returns None as a rule, "" when the parts are to be started anew, and otherwise why what was saved cannot run.
        """
        if self._checking is not None:
            return self._verdict(self._checking)
        if self._clock.monotonic() - self._looked_at < LOOK_SECONDS:
            return None
        self._looked_at = self._clock.monotonic()
        before, self._seen = self._seen, self._look()
        if self._seen == before and self._seen != self._loaded:
            self._loaded = self._seen
            self._checking = subprocess.Popen(
                self._check,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,  # Ctrl-C is not for it
            )
        return None

    def close(self) -> None:
        """Stop a check that is under way."""
        if self._checking is not None:
            self._checking.kill()
            self._checking.communicate()

    def _verdict(self, checking: subprocess.Popen[str]) -> str | None:
        if checking.poll() is None:
            return None
        _, told = checking.communicate()
        self._checking = None
        if checking.returncode == 0:
            return ""
        return told.strip().splitlines()[-1] if told.strip() else f"exit code {checking.returncode}"

    def _look(self) -> dict[Path, tuple[int, int]]:
        found: dict[Path, tuple[int, int]] = {}
        for file in self._files():
            try:
                stat = file.stat()
            except OSError:  # it was removed between the two calls
                continue
            found[file] = (stat.st_mtime_ns, stat.st_size)
        return found
