"""Rebuilding: a fold's table on a ClickHouse server, by one projector and by two that share its partitions; and that of
an incremental Sql from the mirror, on the embedded engine.

What stands for the server is the embedded engine in a process of its own, on this machine (tests/clickhouse_server.py).
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from magnetar.pipelines.carrying_out import CarryingOut, Regenerating
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import IDLE_SECONDS, Projector
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.pipelines.wishes import Wish
from magnetar.projections.generations import Origin
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import QueryRefused
from pydantic import SecretStr

from magnetar import Pipeline, Sql

from . import worker
from .ask import working
from .broker import fresh
from .domain import Box
from .measured import Took
from .tables import KEYS, Content, append

PARTITIONS: Final = 4
DEADLINE_SECONDS: Final = 300.0
LOOK_SECONDS: Final = 0.2

boxes = Pipeline("boxes", aggregates=[Box], projections=[Content], partitions=PARTITIONS)


class Totals(Sql):
    """How often a box came to each total, and by how much."""

    incremental = True
    select = "SELECT total, count() AS puts, sum(amount) AS amount FROM BoxPut GROUP BY total"
    total: int
    puts: int
    amount: int


summed_up = Pipeline(boxes.name, aggregates=[Box], projections=[Totals], partitions=worker.PARTITIONS)


class Rebuilt(NamedTuple):
    """So many projectors, and what they took from the wish to the swap."""

    projectors: int
    seconds: float
    counted: int
    """The events that the table shows then."""


def counted(store: Store) -> int:
    """The events that the table shows, 0 before there is one."""
    try:
        ((puts,),) = store.query("SELECT sum(puts) FROM boxes.content")
    except QueryRefused:
        return 0
    return int(puts)


def rebuilt(settings: Settings, projectors: int, events: int) -> Rebuilt:
    """Let so many fill the table together, and then rebuild it."""
    clock = SystemClock()
    log = open_log(settings, clock)
    provision(boxes, log)
    append(log, events, KEYS, PARTITIONS)
    log.close()
    server = settings.server()
    assert server is not None
    store = Store(server)
    with working(settings, boxes, "benchmarks.rebuilding:boxes", ["projector"] * projectors):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while counted(store) < events:
            assert time.monotonic() < deadline, "the table was not filled in time"
            time.sleep(LOOK_SECONDS)  # ClickHouse tells nobody of a new row: it is counted again
        start = time.monotonic()
        errand = Regenerating(boxes, [Content.__name__], Wish.REBUILD, lambda _: None)
        assert CarryingOut(boxes, settings, errand, clock).run(lambda: time.monotonic() > deadline)
        seconds = time.monotonic() - start
    found = Rebuilt(projectors, seconds, counted(store))
    store.close()
    return found


def run(broker: Settings, events: int) -> Iterator[Rebuilt]:
    """Measure one projector and two, each on a log and a server of its own."""
    from tests.clickhouse_server import clickhouse

    for projectors in (1, 2):
        with fresh(broker) as settings, tempfile.TemporaryDirectory() as folder, clickhouse(Path(folder)) as server:
            at = server.endpoint
            named = {"clickhouse": at.url, "clickhouse_user": at.user, "clickhouse_password": SecretStr(at.token)}
            yield rebuilt(settings.model_copy(update=named), projectors, events)


class FromMirror(NamedTuple):
    """What it took from the wish to the swap, and the events that the table shows then."""

    took: Took
    counted: int


def from_mirror(events: int) -> FromMirror:
    """Fill the mirror and the table from the log, and rebuild the table from the mirror."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        log, settings = SqliteLog(Path(folder), clock), Settings(data=Path(folder))
        provision(summed_up, log)
        append(log, events, KEYS)
        store = Store(embedded_dsn(settings.data))
        projector = Projector(summed_up, log, store, settings, clock=clock)
        projector.prepare()
        projector.open()
        while projector.step():
            pass
        start = Took.now()
        projector.wish(Wish.REBUILD, [Totals.__name__], Origin.MIRROR)
        while generations_of(projector.ask, summed_up, Totals.__name__).shown == 1:
            assert Took.since(start).seconds < DEADLINE_SECONDS, "the table was not rebuilt in time"
            if not projector.step():
                time.sleep(IDLE_SECONDS)  # as the projector's process does: the thread that fills has the processor
        took = Took.since(start)
        ((counted,),) = store.query("SELECT sum(puts) FROM boxes.totals")
        projector.close()
        store.close()
        log.close()
    return FromMirror(took, int(counted))
