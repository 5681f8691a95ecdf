"""Deciding for all aggregates of a pipeline on one thread, each in its turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from magnetar.aggregates import Budget

from .clock import Clock
from .log import Log
from .pipeline import Pipeline
from .worker import Worker

IDLE_SECONDS: Final = 0.2
"""How long a worker waits for commands before it looks whether it should stop."""

_PAUSE_SECONDS: Final = 0.001
_PAUSE_SECONDS_MAX_EACH: Final = 0.002
"""Between rounds in which none of several aggregates had a command: twice as long each time, up to so long for each of
them. Were each waited for in its turn, a command would wait for the others' waits."""


def workers_of(
    pipeline: Pipeline,
    log: Log,
    *,
    name: str,
    clock: Clock,
    aggregates: Sequence[str] = (),
    failpoint: Callable[[str], None] | None = None,
    beat: Callable[[], None] = lambda: None,
) -> list[Worker]:
    """A worker for each of these aggregates, or for all, on one budget of memory.

    Raises SettingsError for one that the pipeline has not.
    """
    for aggregate in aggregates:
        pipeline.schema_of(aggregate)
    budget = Budget()
    return [
        Worker(
            log,
            cls,
            pipeline.schemas[aggregate],
            partitions=pipeline.partitions,
            name=name,
            clock=clock,
            random=random.SystemRandom(),
            budget=budget,
            failpoint=failpoint,
            beat=beat,
        )
        for aggregate, cls in pipeline.aggregates.items()
        if not aggregates or aggregate in aggregates
    ]


def decide_until(
    stopped: Callable[[], bool],
    workers: Sequence[Worker],
    clock: Clock,
    *,
    idle_seconds: float = IDLE_SECONDS,
    at_rest: Callable[[], None] | None = None,
) -> None:
    """Decide what comes until `stopped`; calls `at_rest` each time when no worker had anything to do."""
    alone, pause = len(workers) == 1, _PAUSE_SECONDS
    while not stopped():
        decided = [worker.step(timeout_seconds=idle_seconds if alone else 0.0) for worker in workers]
        if any(decided):
            pause = _PAUSE_SECONDS
            continue
        if at_rest is not None:
            at_rest()
        if not alone:
            clock.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS_MAX_EACH * len(workers))
