"""The tables on a ClickHouse server of its own, which is killed and frozen while projectors that are, too, write to it.

The server is the embedded engine behind ClickHouse's protocol, in a process of its own (tests/clickhouse_server.py).
"""

import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.settings import Settings
from magnetar.schemas import StoreUnavailable

from examples.flights import demo
from examples.flights.data import commands, expected, rows
from examples.flights.pipeline import flights
from tests.chaos.comparing import Watch, stored, wrong_in_history, wrong_in_mirror
from tests.chaos.comparing_projections import wrong_in_projections
from tests.chaos.processes import Part, eventually, parts
from tests.clickhouse_server import Running, clickhouse

SEED = int(os.environ.get("MAGNETAR_CHAOS_SEED", secrets.randbelow(1 << 32)))
FLIGHTS, CHUNK, BACKLOG = 2000, 100, 400


class BadDays:
    """What happens to the server and to those that write to it."""

    def __init__(self, server: Running, projector: Part, second: Part, dice: random.Random) -> None:
        self._server, self._projector, self._second, self._dice = server, projector, second, dice

    def server_killed(self) -> None:
        self._server.kill()
        time.sleep(self._dice.uniform(0, 0.5))
        self._server.start()

    def server_frozen(self) -> None:
        self._server.freeze()
        time.sleep(self._dice.uniform(0.5, 3))
        self._server.thaw()

    def projector_killed(self) -> None:
        self._projector.kill()
        self._projector.start()

    def both_killed(self) -> None:
        self._projector.kill()
        self.server_killed()
        self._projector.start()

    def projector_frozen(self) -> None:
        """Another one takes over; the frozen one wakes, finds its leases lost, and goes."""
        self._projector.send(signal.SIGSTOP)
        self._second.start()
        time.sleep(self._dice.uniform(2, 5))
        self._projector.send(signal.SIGCONT)
        time.sleep(self._dice.uniform(0, 1))
        self._second.kill()

    def all(self) -> list[Callable[[], None]]:
        once = [self.server_frozen, self.projector_frozen]
        days = [self.server_killed, self.projector_killed, self.both_killed, *once]
        return self._dice.sample(days * 2, len(days) * 2)


def arrived(data: Path) -> int:
    """How many commits are in every table; none while the server does not answer."""
    try:
        return demo.commits_in_tables(data)
    except StoreUnavailable:
        return 0


@pytest.mark.xdist_group("chaos")
def test_every_row_is_there_once_after_bad_days_of_the_server_and_of_the_projectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    dice, slice_ = random.Random(SEED), list(islice(rows(all_months=False), FLIGHTS))
    want = expected(slice_)
    (tmp_path / "server").mkdir()
    with clickhouse(tmp_path / "server") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings(data=tmp_path / "data")
        prepare(flights, settings, SystemClock())
        worker = Part(tmp_path, "worker")
        projector, second = (
            Part(tmp_path, "projector", "--pause", "0.01", name=name, settings=server.environment)
            for name in ("first", "second")
        )
        days = BadDays(server, projector, second, dice).all()
        each, sent, watch = want.commands // (len(days) + 1), 0, Watch(settings.data)
        with parts(worker, projector, second), SyncClient(flights, settings=settings) as client:
            worker.start()
            projector.start()
            outgoing = demo.outgoing(commands(iter(slice_)), set())
            for nth, day in enumerate(days, 1):
                while (decided := watch.messages()) < nth * each:
                    if sent - decided < BACKLOG:
                        sent += sum(client.send_many(islice(outgoing, CHUNK)))
                    time.sleep(0.02)
                print(f"behind commit {decided}: {day.__name__}")
                day()
            list(client.send_many(outgoing))
            eventually(lambda: arrived(settings.data) >= want.commands, "all commits are in the tables", projector)
            logs, ask = stored(settings.data), partial(demo.ask, settings.data)
            assert wrong_in_history(logs) == []
            assert wrong_in_mirror(ask, logs) == []
            assert wrong_in_projections(ask, logs) == []
            assert demo.report(settings.data, want) == 0
        watch.close()
