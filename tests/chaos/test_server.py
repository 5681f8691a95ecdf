"""The tables on a ClickHouse server of its own, which is killed and frozen while projectors that are, too, write to it.

The server is the embedded engine behind ClickHouse's protocol, in a process of its own (tests/clickhouse_server.py).
"""

import json
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.settings import Settings
from magnetar.projections.generations import Generations
from magnetar.schemas import StoreUnavailable

from examples.flights import demo
from examples.flights.data import commands, expected, rows
from examples.flights.pipeline import flights
from tests.chaos.comparing import Watch, stored, wrong_in_history, wrong_in_mirror
from tests.chaos.comparing_projections import wrong_in_projections
from tests.chaos.processes import LONG, Part, eventually, parts
from tests.chaos.rebuilding import Rebuilding, Sender
from tests.clickhouse_server import Running, clickhouse

SEED = int(os.environ.get("MAGNETAR_CHAOS_SEED", secrets.randbelow(1 << 32)))
FLIGHTS, CHUNK, BACKLOG = 2000 if LONG else 1000, 100, 400
REBUILT = ("Flight", "Board")
"""A mirror and a fold."""

SENT_EVERY_SECONDS = 0.3
"""Every so often 50 commands: what stands for the server is slower than the engine in the projector's process."""


class BadDays:
    """What happens to the server and to those that write to it."""

    def __init__(self, server: Running, projector: Part, second: Part, dice: random.Random) -> None:
        self._server, self._projector, self._second, self._dice = server, projector, second, dice

    def server_killed(self) -> None:
        self._server.kill()
        self._lasts(0, 0.5)
        self._server.start()

    def server_frozen(self) -> None:
        self._server.freeze()
        self._lasts(0.5, 3)
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
        self._lasts(2, 5)
        self._projector.send(signal.SIGCONT)
        self._lasts(0, 1)
        self._second.kill()

    def _lasts(self, seconds_min: float, seconds_max: float) -> None:
        time.sleep(self._dice.uniform(seconds_min, seconds_max))  # how long it lasts is what is tried, not waited for

    def all(self) -> list[Callable[[], None]]:
        once = [self.server_frozen, self.projector_frozen]
        days = [self.server_killed, self.projector_killed, self.both_killed, *once]
        return self._dice.sample(days * 2, len(days) * 2) if LONG else self._dice.sample(days, len(days))


def arrived(data: Path) -> int:
    """How many commits are in every table; none while the server does not answer."""
    try:
        return demo.commits_in_tables(data)
    except StoreUnavailable:
        return 0


def goes_on(data: Path, had: int) -> bool:
    """Whether more is in the tables than this: who is just starting would end without its server, and be started again
    by whoever supervises it."""
    return arrived(data) > had


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server, to which this process's environment leads."""
    (tmp_path / "server").mkdir()
    with clickhouse(tmp_path / "server") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.mark.xdist_group("chaos")
def test_every_row_is_there_once_after_bad_days_of_the_server_and_of_the_projectors(
    tmp_path: Path, server: Running
) -> None:
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    dice, slice_ = random.Random(SEED), list(islice(rows(all_months=False), FLIGHTS))
    want, settings = expected(slice_), Settings(data=tmp_path / "data")
    prepare(flights, settings, SystemClock())
    worker = Part(tmp_path, "worker")
    projector, second = (
        Part(tmp_path, "projector", "--pause", "0.01", name=name, settings=server.environment)
        for name in ("first", "second")
    )
    days = BadDays(server, projector, second, dice).all()
    each, sent, had, watch = want.commands // (len(days) + 1), 0, 0, Watch(settings.data)
    with parts(worker, projector, second), SyncClient(flights, settings=settings) as client:
        worker.start()
        projector.start()
        outgoing = demo.outgoing(commands(iter(slice_)), set())
        for nth, day in enumerate(days, 1):
            while (decided := watch.messages()) < nth * each:
                if sent - decided < BACKLOG:
                    sent += sum(client.send_many(islice(outgoing, CHUNK)))
                time.sleep(0.02)  # the log tells nobody of a commit: how many there are is counted again
            eventually(partial(goes_on, settings.data, had), "the projector goes on", projector)
            had = arrived(settings.data)
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


class Several(Rebuilding):
    """A worker and two projectors on one server, with live writes, and somebody who reads."""

    def __init__(self, folder: Path, server: Running, *more: str) -> None:
        settings = Settings(data=folder / "data")
        prepare(flights, settings, SystemClock())
        self.worker = Part(folder, "worker")
        self.projectors = [
            Part(folder, "projector", *more, name=name, settings=server.environment) for name in ("first", "second")
        ]
        outgoing = demo.outgoing(commands(rows(all_months=False)), set())
        sender = Sender(settings, outgoing, pause_seconds=SENT_EVERY_SECONDS)
        super().__init__(settings.data, sender, self.worker, *self.projectors, environment=server.environment)

    def start(self) -> None:
        """Both have partitions, and commits are in the tables, when this returns."""
        for each in (self.worker, *self.projectors):
            each.start()
        self.sender.start()
        self.reader.start()
        self.eventually(lambda: all(self.share_of(each) for each in self.projectors), "both have partitions")
        self.eventually(lambda: arrived(self.data) > 500, "commits are in the tables")

    def share_of(self, projector: Part) -> list[int]:
        """Which partitions it has said last that it has, if it does not have all."""
        said = [json.loads(line) for line in projector.output.splitlines() if '"partitions shared out"' in line]
        mine: list[int] = said[-1]["mine"] if said else []
        return mine if len(mine) < flights.partitions else []

    def generations(self) -> list[Generations]:
        return [generations_of(self.ask, flights, name) for name in REBUILT]


@pytest.mark.soak
@pytest.mark.xdist_group("chaos")
def test_two_projectors_rebuild_all_tables_together_while_one_of_them_is_killed(
    tmp_path: Path, server: Running
) -> None:
    stage = Several(tmp_path, server)
    second = stage.projectors[1]
    with parts(stage.worker, *stage.projectors):
        try:
            stage.start()
            command = stage.command(*REBUILT)
            stage.eventually(lambda: all(each.last == 2 for each in stage.generations()), "the rebuild is begun")
            second.kill()
            second.start()
            stage.carry_through(command)
            assert all(each[:3] == ((1, 2), 2, 1) for each in stage.generations())
            stage.sender.stop()
            sent = stage.sender.sent
            stage.eventually(lambda: arrived(stage.data) >= sent, "all commits are in the shown tables")
            logs = stored(stage.data)
            assert wrong_in_history(logs) == []
            assert wrong_in_projections(stage.ask, logs) == []
            for table, generation in (("flights.commits", None), ("flights.flight__commits__g1", 1)):
                stage.eventually(partial(stage.has, table, sent), f"{table} has all")
                assert wrong_in_mirror(stage.ask, logs, generation) == []
            stage.carry_through(stage.command(*REBUILT, "--rollback"))
            assert all(each.shown == 1 for each in stage.generations())
            assert wrong_in_projections(stage.ask, logs) == []
            assert stage.reader.answers
            assert stage.reader.lost == []
        finally:
            stage.close()


@pytest.mark.soak
@pytest.mark.xdist_group("chaos")
def test_a_swap_while_another_projector_goes_on_takes_from_readers_what_they_have_seen(
    tmp_path: Path, server: Running
) -> None:
    stage = Several(tmp_path, server, "--sabotage=shown_tables_go_on")
    with parts(stage.worker, *stage.projectors):
        try:
            stage.start()
            stage.carry_through(stage.command("Flight"))
            stage.eventually(lambda: stage.reader.lost, "the reader misses commits")
        finally:
            stage.close()
