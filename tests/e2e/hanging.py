"""A pipeline whose code can hang, and its processes, which count as stuck after two seconds.

`python -m tests.e2e.hanging worker DATA` runs one.
"""

import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, Self
from unittest.mock import patch

from magnetar.pipelines import projector_process, runtime
from magnetar.pipelines.health import Health
from magnetar.pipelines.settings import load_settings

from magnetar import Aggregate, Command, Event, Meta, Pipeline, Rows

STUCK_SECONDS: Final = 2.0
BRAIN_HANGS, PROJECTION_HANGS = 13, 14
"""Amounts."""


def hang() -> None:
    """Never come back, as a request without a time-out."""
    threading.Event().wait()


class Pay(Command):
    amount: int


class Paid(Event):
    amount: int


class Purse(Aggregate):
    total: int = 0

    def execute(self, command: Pay) -> Paid:
        return Paid(command.amount)

    def apply(self, event: Paid) -> Self:
        if event.amount == BRAIN_HANGS:
            hang()
        return self.replace(total=self.total + event.amount)


class Payment(Rows):
    amount: int

    @classmethod
    def project(cls, event: Paid, meta: Meta) -> Iterator[Self]:
        if event.amount == PROJECTION_HANGS:
            hang()
        yield cls(event.amount)


hanging = Pipeline("hanging", aggregates=[Purse], projections=[Payment], partitions=2)


def main(role: str, data: Path) -> None:
    """Run one process, until it is told to stop."""
    home, run = (
        (runtime, runtime.run_worker) if role == "worker" else (projector_process, projector_process.run_projector)
    )
    with patch.object(home, "Health", partial(Health, stuck_seconds=STUCK_SECONDS)):
        run(hanging, load_settings(data=data), stopped=runtime.StopSignal())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
