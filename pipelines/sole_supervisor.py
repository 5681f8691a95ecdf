"""One `magnetar dev` for a data folder; others can see that it lives."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from magnetar.projections.supervised import SUPERVISOR_FILE
from magnetar.schemas import DataFolderError

_LOOKED_AT_SECONDS: Final = 0.5
"""Whoever looks whether a supervisor lives holds the lock for some microseconds: so long it is tried again."""
_AGAIN_SECONDS: Final = 0.02
"""The pause between two tries: a lock on a file can be waited for, but not for a limited time."""


@contextmanager
def sole_supervisor(folder: Path) -> Generator[None]:
    """Hold the data folder against a second `dev`. Raises DataFolderError naming the process that holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / SUPERVISOR_FILE).open("a+")
    except OSError as error:
        raise DataFolderError(
            f"The data folder {folder} cannot be written: {error.strerror}.", cure="Choose another with --data."
        ) from error
    with file:
        _lock(file, folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock(file: IO[str], folder: Path) -> None:
    deadline = time.monotonic() + _LOOKED_AT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(_AGAIN_SECONDS)
                continue
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise DataFolderError(
                f"The data folder {folder} is in use by another `magnetar dev`, process {holder}.",
                cure="Stop that one, or choose another folder with --data.",
                pid=holder,
            ) from None
        return
