"""Reload on save: which files a pipeline is made of, and whether what was saved can run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from .clock import Clock

LOOK_SECONDS: Final = 0.4
"""The pause between looks at the files. A change counts when the next look finds no further one: editors write in
several steps."""


class Refusal(NamedTuple):
    """Why a pipeline cannot run, as the check has said it."""

    exit_code: int
    text: str


def source_files(target: str) -> frozenset[Path]:
    """The Python files of a loaded pipeline: all that this process has imported from where its module or package is."""
    module = sys.modules[target.partition(":")[0].partition(".")[0]]
    packages = [Path(folder) for folder in getattr(module, "__path__", ())]
    folder = (packages[0] if packages else Path(str(module.__file__))).parent
    files = (Path(file) for each in list(sys.modules.values()) if (file := getattr(each, "__file__", None)))
    return frozenset(file for file in files if file.is_relative_to(folder) and not _is_installed(file, folder))


def _is_installed(file: Path, folder: Path) -> bool:
    """Whether it belongs to an environment that stands in the folder."""
    return any(part == "site-packages" or part.startswith(".") for part in file.relative_to(folder).parts)


class Check:
    """A process that tries whether a pipeline can run; its last line of output says which files that is made of."""

    def __init__(self, arguments: Sequence[str]) -> None:
        # No pipes: a module may print more than one holds while it is imported.
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process runs: see `close`
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long: see `close`
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=self._told,
            process_group=0,  # Ctrl-C is not for it
        )
        self.files: frozenset[Path] = frozenset()

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end."""
        return self._process.poll() is not None

    def wait(self) -> Refusal | None:
        """Wait for its end; None if the pipeline can run."""
        try:
            code = self._process.wait()
            self._printed.seek(0)
            self._told.seek(0)
            if code != 0:
                return Refusal(code, self._told.read().strip() or f"exit code {code}")
            self.files = frozenset(map(Path, json.loads(self._printed.read().splitlines()[-1])))
            return None
        finally:
            self.close()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._printed.close()
        self._told.close()


class Reloader:
    """Watches the files, and tries what was saved in a process of its own before anything running is touched.

    It watches what is imported. While what was saved last cannot run, it also watches what stands beside that: the file
    that has to be mended may be new.
    """

    def __init__(self, files: frozenset[Path], check: Sequence[str], clock: Clock) -> None:
        self._files = files
        self._can_run = True
        self._arguments = list(check)
        self._clock = clock
        self._loaded = self._seen = self._look()
        self._looked_at = clock.monotonic()
        self._checking: Check | None = None

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
            self._checking = Check(self._arguments)
        return None

    def close(self) -> None:
        """Stop a check that is under way."""
        if self._checking is not None:
            self._checking.close()

    def _verdict(self, checking: Check) -> str | None:
        if not checking.is_done:
            return None
        self._checking = None
        refusal = checking.wait()
        self._can_run = refusal is None
        if refusal is None:
            self._files = checking.files
        # What was watched before counts as it was when the check began: it may have been saved again since.
        now = self._look()
        self._loaded = {file: self._loaded.get(file, now[file]) for file in now}
        return "" if refusal is None else refusal.text

    def _look(self) -> dict[Path, tuple[int, int]]:
        found: dict[Path, tuple[int, int]] = {}
        for file in sorted(self._files if self._can_run else self._files.union(_beside(self._files))):
            try:
                stat = file.stat()
            except OSError:  # it was removed, or is being replaced
                continue
            found[file] = (stat.st_mtime_ns, stat.st_size)
        return found


def _beside(files: Iterable[Path]) -> Iterable[Path]:
    """All Python files in the folders of these, and of a package also one folder below."""
    for folder in {file.parent for file in files}:
        yield from folder.glob("*.py")
        if (folder / "__init__.py").exists():
            yield from folder.glob("*/*.py")
