"""What `magnetar dev` shows: a table that follows the pipeline on a terminal, plain lines elsewhere.

Of the parked commands, it counts those that are not settled.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from magnetar.projections.progress import Ask, outcomes, unsettled
from magnetar.schemas import MagnetarError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .clock import Clock
from .log import Log
from .pipeline import Pipeline
from .status import StatusReader
from .supervisor import Part

REFRESH_SECONDS: Final = 1.0
OUTCOMES: Final = ("accepted", "nothing", "rejected", "parked")


class PlainDisplay:
    """One line for each thing that happens."""

    is_live = False

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    def show(self, parts: Sequence[Part]) -> None:
        """Show how the parts are: not here."""

    def close(self) -> None:
        """Stop."""


class LiveDisplay(PlainDisplay):
    """A table at the bottom of the terminal, with everything else above it.

    What it shows is read on a thread of its own, so that neither a slow log nor a slow engine holds up the supervisor.
    """

    is_live = True

    def __init__(self, console: Console, pipeline: Pipeline, log: Log, clock: Clock, ask: Ask) -> None:
        super().__init__(console)
        self._pipeline = pipeline
        self._log = log
        self._status = StatusReader(pipeline, log, clock, ask)
        self._ask = ask
        self._rows: list[tuple[str, ...]] = []
        self._shown: object = None
        self._stop = threading.Event()
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()
        self._thread = threading.Thread(target=self._follow, name="magnetar-display", daemon=True)
        self._thread.start()

    def show(self, parts: Sequence[Part]) -> None:
        """Draw the table anew, if it has changed."""
        running = "  ".join(f"{part.role} {_how_it_is(part)}" for part in parts)
        if self._shown == (self._rows, running):
            return
        self._shown = (self._rows, running)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("aggregate", "undecided", *OUTCOMES):
            table.add_column(column, justify="left" if column == "aggregate" else "right")
        for row in self._rows:
            table.add_row(*row)
        table.caption, table.caption_justify = Text(running), "left"
        self._live.update(table, refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._stop.set()
        self._thread.join(5)
        self._live.stop()
        self._log.close()

    def _follow(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            self._rows = self._look()

    def _look(self) -> list[tuple[str, ...]]:
        """A row for each aggregate, also for one that a reload has brought, as soon as it has a commit."""
        try:
            counts = outcomes(self._ask, self._pipeline.name)
            parked = unsettled(self._ask, self._pipeline.name)
        except MagnetarError:
            return [(name, self._undecided(name), *["?"] * len(OUTCOMES)) for name in self._pipeline.aggregates]
        counts |= {(name, "parked"): parked.get(name, 0) for name, _ in counts}
        names = dict.fromkeys([*self._pipeline.aggregates, *(name for name, _ in counts)])
        return [(name, self._undecided(name), *(f"{counts.get((name, o), 0):,}" for o in OUTCOMES)) for name in names]

    def _undecided(self, aggregate: str) -> str:
        try:
            waiting = [each.waiting for each in self._status.backlogs(aggregate) if each is not None]
        except MagnetarError:
            waiting = []
        return f"{sum(waiting):,}" if waiting else "?"


def _how_it_is(part: Part) -> str:
    return f"process {part.pid}" if part.pid else "waits until you save" if part.is_refused else "is being started"
