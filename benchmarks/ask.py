"""What a client waits for an answer, and how many answers a second there are with many asks in flight.

The embedded log, a worker in a process of its own, a client in this one. `python -m benchmarks.ask` prints the figures.
"""

import asyncio
import random
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.supervisor import part_arguments

from magnetar import Client

from .domain import Box, Put
from .worker import boxes

AGGREGATES = 1000
WARM_UP = 64


class Answered(NamedTuple):
    """How long an ask took, idle, in milliseconds; and the rate with `in_flight` of them at once."""

    p50_ms: float
    p99_ms: float
    per_second: float
    in_flight: int
    counted: int


@contextmanager
def working(settings: Settings) -> Generator[None]:
    """A worker in a process of its own."""
    prepare(boxes, settings, SystemClock())
    arguments = [*part_arguments("worker", "benchmarks.worker:boxes"), "--log-level", "error"]
    process = subprocess.Popen([*arguments, "--data", str(settings.data)], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate()  # closes its standard input: it ends


def idle(settings: Settings, asks: int) -> list[float]:
    """How many milliseconds each of some asks took, one after the other, with pauses in which all comes to rest."""
    pause = random.Random(1)
    took: list[float] = []
    with SyncClient(boxes, settings=settings) as client:
        for n in range(WARM_UP):  # every partition has an owner then
            client.ask(Box, f"box-{n}", Put(1, ""))
        for n in range(asks):
            time.sleep(pause.uniform(0.0, 0.05))
            start = time.perf_counter()
            client.ask(Box, f"box-{n % AGGREGATES}", Put(1, ""))
            took.append((time.perf_counter() - start) * 1000)
    return took


async def many(settings: Settings, asks: int, in_flight: int) -> float:
    """Seconds for so many asks, so many at once."""
    numbers = iter(range(asks))

    async with Client(boxes, settings=settings) as client:

        async def ask_on() -> None:
            for n in numbers:
                await client.ask(Box, f"box-{n % AGGREGATES}", Put(1, ""), timeout_seconds=120)

        start = time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(in_flight)))
        return time.perf_counter() - start


def run(*, idle_asks: int = 300, asks: int = 20_000, in_flight: int = 2000) -> Answered:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "data")
        with working(settings):
            took = quantiles(idle(settings, idle_asks), n=100)
            seconds = asyncio.run(many(settings, asks, in_flight))
    return Answered(took[49], took[98], asks / seconds, in_flight, asks)


if __name__ == "__main__":
    answered = run()
    print(
        f"ask, idle: p50 {answered.p50_ms:.1f} ms, p99 {answered.p99_ms:.1f} ms; "
        f"{answered.per_second:,.0f} asks/s with {answered.in_flight:,} in flight"
    )
