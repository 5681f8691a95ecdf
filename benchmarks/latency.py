"""How long after its answer a command's row is visible, while another process sends thousands of commands a second.

A worker and a projector in processes of their own, a client in this one, a sender in a third.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import quantiles
from typing import Final, NamedTuple, Self

from magnetar.pipelines import SyncClient
from magnetar.pipelines.settings import Settings
from magnetar.schemas import OutcomeUnknown, StoreUnavailable

from magnetar import Pipeline, Rows

from .ask import ASK_SECONDS, WARM_UP, sending, working
from .broker import fresh
from .domain import Box, BoxPut, Put
from .worker import PARTITIONS, boxes

ROLES: Final = ("worker", "projector")
LOOK_SECONDS: Final = 0.05
START_SECONDS: Final = 120.0


class Seen(Rows):
    """What was put into boxes, to be looked up by the box."""

    order_by = ("_id",)
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


def wait_for_row(client: SyncClient, id: str) -> None:
    """Return when a query finds the row of an aggregate. Raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(StoreUnavailable):  # the projector is starting
            if client.query(Seen, "_id = {id:String}", id=id):
                return
        time.sleep(LOOK_SECONDS)  # ClickHouse tells nobody of a new row: whoever wants it can only ask again
    raise TimeoutError(f"no row of {id} in {START_SECONDS:.0f} s")


def probed(settings: Settings, asks: int) -> list[float]:
    """How many milliseconds each of some rows let wait for itself."""
    took: list[float] = []
    with SyncClient(seen, settings=settings) as client:
        for n in range(asks):
            try:
                client.ask(Box, f"probe-{n}", Put(1, ""), timeout_seconds=ASK_SECONDS)
                start = time.perf_counter()
                wait_for_row(client, f"probe-{n}")
            except (OutcomeUnknown, TimeoutError):  # it falls behind: no more is measured
                return [1000 * ASK_SECONDS] * 2
            took.append((time.perf_counter() - start) * 1000)
    return took


def run(broker: Settings, *, asks: int = 300) -> Latency:
    """Measure it."""
    with fresh(broker) as settings, working(settings, seen, "benchmarks.latency:seen", ROLES):
        with SyncClient(seen, settings=settings) as client:
            for n in range(WARM_UP):  # every partition has an owner then
                client.ask(Box, f"warm-{n}", Put(1, ""), timeout_seconds=ASK_SECONDS)
            wait_for_row(client, f"warm-{WARM_UP - 1}")
        with sending(settings) as stopped:
            found = quantiles(probed(settings, asks), n=100)
            return Latency(found[49], found[98], stopped())
