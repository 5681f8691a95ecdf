"""Starting where the broker is not up yet: try again, say so, and give up when it has taken too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import structlog
from magnetar.schemas import AccessDenied, LogUnavailable

from .clock import Clock

T = TypeVar("T")

_FIRST_SECONDS: Final = 0.5
_PAUSE_SECONDS_MAX: Final = 10.0
_LOOK_SECONDS: Final = 0.2


class Random(Protocol):
    """Where the jitter comes from."""

    def random(self) -> float:
        """A number from 0 to 1."""
        ...


def patiently(
    attempt: Callable[[], T], *, seconds_max: float, stopped: Callable[[], bool], clock: Clock, random: Random
) -> T:
    """Return what `attempt` gives, which is made again while it raises LogUnavailable.

    The pauses double from half a second to ten, each shortened by up to half at random, so that the processes of a
    whole cluster do not all come at once. Raises what the last attempt raised after `seconds_max`, at once if the log
    denies access, and when told to stop.
    """
    logger = structlog.get_logger("magnetar.start")
    deadline, pause = clock.monotonic() + seconds_max, _FIRST_SECONDS
    while True:
        try:
            return attempt()
        except AccessDenied:
            raise
        except LogUnavailable as error:
            left = deadline - clock.monotonic()
            if left <= 0 or stopped():
                raise
            again = min(pause * (1 - random.random() / 2), left)
            logger.warning("waiting for the log", what=error.what, again_in=round(again, 1), gives_up_in=round(left))
        pause = min(2 * pause, _PAUSE_SECONDS_MAX)
        _sleep(again, stopped, clock)


def _sleep(seconds: float, stopped: Callable[[], bool], clock: Clock) -> None:
    until = clock.monotonic() + seconds
    while not stopped() and (left := until - clock.monotonic()) > 0:
        clock.sleep(min(left, _LOOK_SECONDS))
