"""How a rebuild is shown while it goes on: a bar on a terminal, else a line now and then, or JSON for programs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import msgspec
import typer

from .clock import Clock
from .rebuild_status import GenerationStatus

_LINE_SECONDS: Final = 2.0


class Bar(Protocol):
    """Shows how far it is."""

    def show(self, statuses: Sequence[GenerationStatus]) -> None:
        """Take in how far it is now."""
        ...


class Lines:
    """A line for each generation that is being filled, every two seconds, with the time that is left."""

    def __init__(self, clock: Clock, *, json: bool) -> None:
        self._clock = clock
        self._json = json
        self._next_at = clock.monotonic()
        self._began: dict[tuple[str, int], tuple[float, int]] = {}

    def show(self, statuses: Sequence[GenerationStatus]) -> None:
        """Print, if it is time."""
        filling = [each for each in statuses if each.state == "filling"]
        for each in filling:
            self._began.setdefault((each.table, each.generation), (self._clock.monotonic(), each.commits))
        if self._clock.monotonic() < self._next_at:
            return
        self._next_at = self._clock.monotonic() + _LINE_SECONDS
        for each in filling:
            self._print(each, self._seconds_left(each))

    def _seconds_left(self, each: GenerationStatus) -> float | None:
        at, commits = self._began[each.table, each.generation]
        seconds, done = self._clock.monotonic() - at, each.commits - commits
        return max(0, each.of_commits - each.commits) * seconds / done if done > 0 else None

    def _print(self, each: GenerationStatus, seconds_left: float | None) -> None:
        if self._json:
            typer.echo(msgspec.json.encode({**each._asdict(), "seconds_left": seconds_left}).decode())
            return
        left = "" if seconds_left is None else f", {seconds_left:,.0f} s left"
        typer.echo(
            f"{each.table}: generation {each.generation} has {each.commits:,} of {each.of_commits:,} commits{left}"
        )


@contextmanager
def progress(clock: Clock, *, json: bool) -> Generator[Bar]:
    """A way to show how far it is, while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(highlight=False)
    if json or not console.is_terminal or console.is_dumb_terminal:
        yield Lines(clock, json=json)
        return

    class RichBar:
        """A bar for each generation."""

        def __init__(self, bars: Progress) -> None:
            self._bars = bars
            self._tasks: dict[tuple[str, int], TaskID] = {}

        def show(self, statuses: Sequence[GenerationStatus]) -> None:
            for each in statuses:
                key = each.table, each.generation
                if each.state == "filling" and key not in self._tasks:
                    self._tasks[key] = self._bars.add_task(f"{each.table}, generation {each.generation}")
                if key in self._tasks:
                    self._bars.update(self._tasks[key], completed=each.commits, total=each.of_commits)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        yield RichBar(bars)
