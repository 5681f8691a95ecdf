"""How a copy is shown while it goes on: first what it does, then a line now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .clock import Clock
from .copying import CopyProgress

LINE_SECONDS: Final = 2.0

_COUNTED: Final = {
    "looking": "partitions looked at",
    "taking": "new partitions taken",
    "copying": "commits copied",
    "comparing": "commits compared",
}


class CopyLines:
    """A line every two seconds, where there is anything new to say."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._next_at = clock.monotonic() + LINE_SECONDS

    def begin(self, source: str, to: str) -> None:
        """Say what is done."""
        self._say(f"Looking whether {source} has decided all commands; then its log is copied to {to}, and compared.")

    def show(self, progress: CopyProgress) -> None:
        """Say how far it is, if it is time."""
        if progress.doing not in _COUNTED or self._clock.monotonic() < self._next_at:
            return
        self._next_at = self._clock.monotonic() + LINE_SECONDS
        how_far = f"{progress.commits:,} of {progress.total:,} {_COUNTED[progress.doing]}"
        self._say(f"{progress.aggregate}: {how_far}")
