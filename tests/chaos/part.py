"""One part of the flights' pipeline as a process that kills or freezes itself at a failpoint.

The product has no such switch: this module starts what `magnetar run` starts, with a failpoint put in.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import SystemRandom
from typing import Any, NamedTuple

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.copying import Copying
from magnetar.pipelines.logging import configure_logging
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.logs.sqlite_consumer import SqliteConsumer
from magnetar.pipelines.projector_process import run_projector
from magnetar.pipelines.runtime import StopSignal, run_worker
from magnetar.pipelines.settings import Settings, open_log
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import DataFolderError, QueryRefused, StoreUnavailable

from examples.flights.data import rows
from examples.flights.pipeline import flights
from tests.chaos.processes import DEADLINE_SECONDS
from tests.chaos.sabotages import SABOTAGES
from tests.chaos.sending import Asking


class Armed(NamedTuple):
    """What happens at a failpoint: `after_send:3:KILL` is a kill -9 of this process at its third passing."""

    failpoint: str
    passing: int
    signal: signal.Signals

    @classmethod
    def read(cls, text: str) -> Armed:
        """Read the notation above."""
        failpoint, passing, name = text.split(":")
        return cls(failpoint, int(passing), signal.Signals[f"SIG{name}"])


class Failpoints:
    """Counts the passings, and strikes. The pause makes each place as likely as any to be hit by a random kill."""

    def __init__(self, armed: list[Armed], pause_seconds: float) -> None:
        self._armed = {(each.failpoint, each.passing): each.signal for each in armed}
        self._pause_seconds = pause_seconds
        self._passings: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            self._passings[name] += 1
            struck = self._armed.get((name, self._passings[name]))
            if struck is not None:
                os.kill(os.getpid(), struck)
        time.sleep(self._pause_seconds)


def within_transactions(failpoint: Callable[[str], None]) -> None:
    """Pass `in_log_transaction` and `in_registry_transaction` between BEGIN IMMEDIATE and COMMIT."""
    store, write = SqliteLog.store, SqliteConsumer._write_rows

    def store_slowly(self: Any, connection: Any, schema: int, entries: Any) -> None:
        store(self, connection, schema, entries)
        failpoint("in_log_transaction")

    def write_slowly(self: Any) -> None:
        write(self)
        failpoint("in_registry_transaction")

    SqliteLog.store = store_slowly  # type: ignore[method-assign]
    SqliteConsumer._write_rows = write_slowly  # type: ignore[method-assign]


def unfinished(settings: Settings) -> list[list[Any]]:
    """What a killed projector has left: per partition, the range that was begun, and how much of it each table has."""
    store = opened(settings)
    try:
        return [list(row) for row in store.query(_UNFINISHED)]
    except QueryRefused:  # it did not come as far as to create the tables
        return []
    finally:
        store.close()


def opened(settings: Settings) -> Store:
    """ClickHouse. Who has just been killed, or asks something, may hold the engine for a moment."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return Store(settings.server() or embedded_dsn(settings.data))
        except (DataFolderError, StoreUnavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


_UNFINISHED = """
WITH newest AS (
    SELECT partition, argMax((first, last), (epoch, nonce, first)) AS range
    FROM magnetar.pending WHERE `projection` = 'mirror' GROUP BY partition
), in_commits AS (
    SELECT partition, max(number) AS top, sum(events) AS should FROM flights.flight__commits GROUP BY partition
), in_events AS (SELECT partition, count() AS n FROM flights.flight__events GROUP BY partition)
SELECT partition, range.1, range.2, in_commits.top, in_commits.should, in_events.n
FROM newest LEFT JOIN in_commits USING partition LEFT JOIN in_events USING partition ORDER BY partition
"""


def main() -> None:
    """Run the part until it is told to stop, or strikes itself down."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("role", choices=("worker", "projector", "client", "copy"))
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--name")
    arguments.add_argument("--partitions", type=int)
    arguments.add_argument("--at", action="append", default=[], type=Armed.read)
    arguments.add_argument("--pause", type=float, default=0.0)
    arguments.add_argument("--sabotage", choices=sorted(SABOTAGES))
    given = arguments.parse_args()
    configure_logging("info", role=given.role)
    stopped = StopSignal(supervised=True)
    if given.sabotage:
        SABOTAGES[given.sabotage]()
    failpoint = Failpoints(given.at, given.pause)
    within_transactions(failpoint)
    settings = Settings(data=given.data)
    if given.role == "worker":
        run_worker(flights, settings, stopped=stopped, name=given.name, failpoint=failpoint)
        return
    if given.role == "copy":
        clock, log = SystemClock(), open_log(settings, SystemClock())
        copying = Copying(
            flights,
            log,
            to=given.name,
            partitions=given.partitions,
            clock=clock,
            random=SystemRandom(),
            failpoint=failpoint,
        )
        print(*copying.run(), sep="\n", flush=True)
        log.close()
        return
    if given.role == "client":
        Asking(given.data).send(islice(rows(all_months=False), 50))
        return
    print("unfinished", json.dumps(unfinished(settings)), flush=True)
    run_projector(flights, settings, stopped=stopped, failpoint=failpoint)


if __name__ == "__main__":
    main()
