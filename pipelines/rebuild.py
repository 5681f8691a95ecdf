"""A rebuild: filling a generation of tables beside the one that is shown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

from magnetar.projections.generations import behind
from magnetar.projections.leased_table import LeasedTable, Table

from .clock import Clock
from .feeding import Feeding, Source

FAILPOINTS: Final = ("before_swap", "swap_recorded", "between_views", "after_swap", "drop_recorded", "between_drops")
"""Where tests may crash a projector that swaps or drops, besides those of the range loop, which begin with `filling_`
there."""

RANGE_COMMITS_MAX: Final = 100_000
"""Commits in one range of a rebuild: fewer inserts, and so fewer parts to merge, than in ranges of live writes."""

SWAP_COMMITS_MAX: Final = 5_000
"""A generation that is behind by no more may be swapped in: the shown one waits while it takes in these, which is a
fraction of a second."""

_ROUNDS_MAX: Final = 20
_IDLE_SECONDS: Final = 0.05


class Filler:
    """Fills tables on a thread of its own, at its own pace, so that those that are shown stay as fresh as they are."""

    def __init__(self, source: Source, *, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called for each range while somebody waits for the thread to pause."""
        self.feeding = Feeding(
            source, range_commits_max=RANGE_COMMITS_MAX, name="rebuild", is_shown=False, beat=self._beat_if_waited_for
        )
        self._beat = beat
        self._clock: Clock = source.clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @contextmanager
    def paused(self) -> Generator[Feeding]:
        """Finish the ranges that are under way, and let the caller have the loops; then go on with what is left."""
        self._pause()
        try:
            yield self.feeding
        finally:
            if self.feeding.tables:
                self._stop.clear()
                self._thread = threading.Thread(target=self._run, name="magnetar-rebuild", daemon=True)
                self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop, and let go of the log."""
        self._pause()
        self.feeding.close()

    def _pause(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat_if_waited_for(self) -> None:
        """Otherwise this thread would vouch for the projector's own, which may be stuck."""
        if self._stop.is_set():
            self._beat()

    def _run(self) -> None:
        try:
            self.feeding.open()
            while not self._stop.is_set():
                if not self.feeding.step():
                    self._clock.sleep(_IDLE_SECONDS)
        except BaseException as error:  # noqa: BLE001 - it is raised where the projector looks after its rebuilds
            self._error = error


class Furthest:
    """What a generation has to come up to: the furthest of some tables on each partition."""

    def __init__(self, tables: Sequence[LeasedTable]) -> None:
        self._tables = tables

    def last_numbers(self) -> dict[int, int]:
        """By partition, the number of the last commit that one of them has."""
        found: dict[int, int] = {}
        for partition, number in (each for table in self._tables for each in table.last_numbers().items()):
            found[partition] = max(number, found.get(partition, 0))
        return found


def commits_behind(shown: Furthest, feeding: Feeding, table: Table) -> int:
    """How many commits of the shown table this one lacks."""
    return sum(behind(shown.last_numbers(), feeding.numbers(table)).values())


def catch_up(shown: Furthest, feeding: Feeding, table: Table, *, partitions: int) -> bool:
    """Feed the table until every partition is as far as the shown one's, which nobody feeds meanwhile.

    Returns whether it came to that: a partition that is lost keeps the views from being swapped.
    """
    goal = shown.last_numbers()
    for _ in range(_ROUNDS_MAX):
        numbers = feeding.numbers(table)
        if len(numbers) == partitions and not behind(goal, numbers):
            return True
        feeding.step_table(table)
    return False
