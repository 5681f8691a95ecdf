"""How long after its answer a command's row is visible, while another process sends thousands of commands a second.

A worker and a projector in processes of their own, a client in this one, a sender in a third.
"""

import multiprocessing
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Final, NamedTuple, Self

from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.supervisor import part_arguments
from magnetar.projections.query import ask_endpoint, read_endpoint
from magnetar.schemas import OutcomeUnknown

from magnetar import Pipeline, Rows

from .ask import ASK_SECONDS, WARM_UP, send
from .broker import environment, fresh
from .domain import Box, BoxPut, Put
from .worker import PARTITIONS, boxes

ROLES: Final = ("worker", "projector")
LOOK_SECONDS: Final = 0.005
START_SECONDS: Final = 120.0


class Seen(Rows):
    """What was put into boxes."""

    amount: int

    @classmethod
    def project(cls, event: BoxPut) -> Iterator[Self]:
        """A row for each."""
        yield cls(event.amount)


seen = Pipeline(boxes.name, aggregates=[Box], projections=[Seen], partitions=PARTITIONS)


class Latency(NamedTuple):
    """Milliseconds from the answer to a command until a query finds its row, and the commands a second meanwhile."""

    p50_ms: float
    p99_ms: float
    sent_per_second: float


@contextmanager
def working(settings: Settings) -> Generator[None]:
    """A worker and a projector, each in a process of its own."""
    prepare(seen, settings, SystemClock())
    with ExitStack() as left:
        for role in ROLES:
            arguments = [*part_arguments(role, "benchmarks.latency:seen"), "--log-level", "error"]
            arguments += ["--data", str(settings.data)]
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, env=environment(settings))
            left.callback(process.communicate)  # closes its standard input: it ends
        yield


def wait_for_row(folder: Path, id: str) -> None:
    """Return when a query finds the row of an aggregate. Raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        endpoint = read_endpoint(folder)
        query = f"SELECT count() FROM {seen.name}.seen WHERE _id = '{id}'"
        if endpoint is not None and ask_endpoint(endpoint, query, "TSV").strip() == b"1":
            return
        time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"no row of {id} in {START_SECONDS:.0f} s")


def probed(settings: Settings, asks: int) -> list[float]:
    """How many milliseconds each of some rows let wait for itself."""
    took: list[float] = []
    with SyncClient(seen, settings=settings) as client:
        for n in range(asks):
            try:
                client.ask(Box, f"probe-{n}", Put(1, ""), timeout_seconds=ASK_SECONDS)
                start = time.perf_counter()
                wait_for_row(settings.data, f"probe-{n}")
            except (OutcomeUnknown, TimeoutError):  # it falls behind: no more is measured
                return [1000 * ASK_SECONDS] * 2
            took.append((time.perf_counter() - start) * 1000)
    return took


def run(broker: Settings, *, asks: int = 300) -> Latency:
    """Measure it."""
    context = multiprocessing.get_context("spawn")
    stop, sent = context.Event(), context.Queue()
    with fresh(broker) as settings, working(settings):
        with SyncClient(seen, settings=settings) as client:
            for n in range(WARM_UP):  # every partition has an owner then
                client.ask(Box, f"warm-{n}", Put(1, ""), timeout_seconds=ASK_SECONDS)
        wait_for_row(settings.data, f"warm-{WARM_UP - 1}")
        sender = context.Process(target=send, args=(settings, stop, sent), daemon=True)
        sender.start()
        try:
            sent.get(timeout=ASK_SECONDS)
            found = quantiles(probed(settings, asks), n=100)
            stop.set()
            return Latency(found[49], found[98], sent.get(timeout=60))
        finally:
            stop.set()
            sender.join(60)
