"""Asking again: a command that is decided while its reply is missing is sent once more, and gets its first outcome.

Inboxes on Pulsar are not stored: a reply that comes while the client is cut off is gone, as when the broker closes the
connection of a client that was too busy to answer its keep-alive. As the command is decided once, asking again is safe.
What has to be known first is that it *is* decided, or every client would double its commands just when the workers are
behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog
from magnetar.aggregates.id_window import WINDOW_MS
from magnetar.schemas import MagnetarError
from magnetar.schemas.ids import made_at_ms

from .clock import Clock
from .log import LosesReplies, Reached
from .outgoing import Route
from .replies import Ask

LATE_SECONDS: Final = 3.0
"""How long behind its command's storing a reply is not missed yet."""

_LOOK_SECONDS: Final = 1.0
_LOOK_SECONDS_MAX: Final = 8.0
"""How often it is looked what is decided while replies are late: half as often each time, since workers that are behind
make all of them late."""

_AGE_MS_MAX: Final = WINDOW_MS // 2
"""An older id is not sent again: past the window, that would be a command of its own, parked as expired."""

_logger = structlog.get_logger("magnetar.client")


class Repeats:
    """Watches the asks of one client from a thread of its own, once a second."""

    def __init__(
        self, log: LosesReplies, late: Callable[[float], Sequence[Ask]], repeat: Callable[[Ask], None], clock: Clock
    ) -> None:
        """`late` gives the asks whose commands were stored before a time and that nobody has answered."""
        self._log = log
        self._late = late
        self._repeat = repeat
        self._clock = clock
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="magnetar-repeats", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        pause = _LOOK_SECONDS
        while not self._closed.wait(pause):
            late = [ask for ask in self._late(self._clock.monotonic() - LATE_SECONDS) if self._may_be_repeated(ask)]
            if not late:
                pause = _LOOK_SECONDS
                continue
            pause = min(2 * pause, _LOOK_SECONDS_MAX)
            for route in {ask.route for ask in late}:
                if self._look(route, [ask for ask in late if ask.route is route]):
                    pause = _LOOK_SECONDS

    def _may_be_repeated(self, ask: Ask) -> bool:
        return self._clock.now_ms() - made_at_ms(ask.command_id) < _AGE_MS_MAX

    def _look(self, route: Route, late: Iterable[Ask]) -> int:
        """Repeat what is decided; returns how many. A client that may not look, or cannot now, repeats nothing."""
        try:
            reached = self._log.reached(route.commands)
        except MagnetarError:
            return 0
        decided = [ask for ask in late if _is_decided(ask, reached[route.partition_of(ask.aggregate_id)])]
        for ask in decided:
            self._repeat(ask)
        if decided:
            _logger.warning("replies missing", aggregate=route.aggregate, asked_again=len(decided))
        return len(decided)


def _is_decided(ask: Ask, reached: Reached) -> bool:
    """Whether all that was stored when it was first looked has been acknowledged: its command is among that."""
    if ask.end is None:
        ask.end = reached.end
    return ask.end is not None and reached.acknowledged is not None and reached.acknowledged >= ask.end
