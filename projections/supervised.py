"""Whether a `magnetar dev` lives that has a data folder: it may just be starting whoever opens the engine there."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Final

SUPERVISOR_FILE: Final = "dev.lock"
"""Locked by the `magnetar dev` that runs on the folder, for as long as it lives."""


def is_supervised(folder: Path) -> bool:
    """Whether one lives. This takes the lock itself for some microseconds."""
    try:
        with (folder / SUPERVISOR_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
