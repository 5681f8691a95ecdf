"""Ask, then query after the receipt's position, while workers and projectors are killed and tables are swapped.

`make chaos` asks 1,000 times. A run prints its random seed; MAGNETAR_CHAOS_SEED repeats the kills.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines import reading as reading_module
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.control import send_wish
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.raw_query import answer_after
from magnetar.pipelines.receipt import Receipt
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.wishes import Wish
from magnetar.projections.query import QueryFormat, read_endpoint
from magnetar.schemas import MagnetarError

from examples.flights.flight import Depart, Flight, Schedule
from examples.flights.pipeline import (
    Board,
    DelaysByRoute,
    HourlyDepartures,
    LateDeparture,
    RejectionsByReason,
    flights,
)
from tests.chaos.processes import DEADLINE_SECONDS, Part, answers, eventually, parts

SEED = int(os.environ.get("MAGNETAR_CHAOS_SEED", secrets.randbelow(1 << 32)))
ASKS = int(os.environ.get("MAGNETAR_CHAOS_ASKS", "45"))
ASKS_PER_TEST = 50
ASKS_PER_KILL = 15
TABLES = ("Flight", "LateDeparture", "Board", "DelaysByRoute", "HourlyDepartures")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SQL = "SELECT count() AS commands FROM flights.rejections"

pytestmark = pytest.mark.xdist_group("chaos")


class Trouble:
    """Kills one part after the other, each after so many asks, wishes for a rebuild, and starts again what is dead."""

    def __init__(self, dice: random.Random, *them: Part) -> None:
        self._dice = dice
        self._them = them
        self._stop = threading.Event()
        self._asked = 0
        self.kills = 0
        self._thread = threading.Thread(target=self._run, name="trouble")

    def asked(self) -> None:
        """One more was asked."""
        self._asked += 1

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Make trouble until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._dice.uniform(0, 0.1)):
            if self._asked // ASKS_PER_KILL > self.kills:
                self.kills += 1
                victim = self._them[self.kills % len(self._them)]
                if victim.role == "projector":
                    self._rebuild(victim)
                    time.sleep(self._dice.uniform(0, 1))
                victim.kill()
            for part in self._them:
                if part.is_dead():
                    part.start()

    def _rebuild(self, projector: Part) -> None:
        """So that it is killed while a generation is filled or swapped."""
        endpoint = read_endpoint(projector.data)
        if endpoint is not None:
            with contextlib.suppress(MagnetarError, httpx.HTTPError):
                send_wish(endpoint, flights, Wish.REBUILD, [self._dice.choice(TABLES)])


def typed(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """Through the client."""
    found = client.query(RejectionsByReason, after=receipt, wait_seconds=DEADLINE_SECONDS)
    return sum(row.commands for row in found)


def raw(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """As the command line asks."""
    found, late = answer_after(
        data, SQL, QueryFormat.JSONL, [receipt.position], wait_seconds=DEADLINE_SECONDS, stale=False
    )
    assert late is None
    return int(found.decode().split(":")[1].strip('"}\n'))


def over_http(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """As any other program asks: it tries again when the connection breaks."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        endpoint = read_endpoint(data)
        if endpoint is not None:
            headers = {"X-ClickHouse-Key": endpoint.token, "X-Magnetar-After": receipt.position}
            with contextlib.suppress(httpx.HTTPError):
                response = httpx.post(endpoint.url, content=SQL, headers=headers, timeout=60)
                if response.is_success:
                    return int(response.text)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def on_board(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """In a fold."""
    found = client.query(Board, "status = 'Scheduled'", after=receipt, wait_seconds=DEADLINE_SECONDS)
    return len(found)


def among_the_late(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """In rows."""
    return len(client.query(LateDeparture, after=receipt, wait_seconds=DEADLINE_SECONDS))


def by_route(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """In an incremental table."""
    return sum(row.departures for row in client.query(DelaysByRoute, after=receipt, wait_seconds=DEADLINE_SECONDS))


def by_hour(client: SyncClient, data: Path, receipt: Receipt[object]) -> int:
    """In a fold by window."""
    return sum(row.departures for row in client.query(HourlyDepartures, after=receipt, wait_seconds=DEADLINE_SECONDS))


def reject(client: SyncClient, n: int) -> Receipt[object]:
    """What was never planned cannot leave."""
    return client.ask(Flight, f"never-planned-{n}", Depart(NOON), timeout_seconds=DEADLINE_SECONDS)


def plan(client: SyncClient, n: int) -> Receipt[object]:
    """One flight more on the board."""
    return client.ask(Flight, f"planned-{n}", Schedule("AA", "JFK", "LAX", NOON), timeout_seconds=DEADLINE_SECONDS)


def depart(client: SyncClient, n: int) -> Receipt[object]:
    """One departure more, an hour and a half late."""
    client.ask(Flight, f"late-{n}", Schedule("AA", "JFK", "LAX", NOON), timeout_seconds=DEADLINE_SECONDS)
    left = Depart(NOON + timedelta(minutes=90))
    return client.ask(Flight, f"late-{n}", left, timeout_seconds=DEADLINE_SECONDS)


class Way(NamedTuple):
    """What is asked, and where it must be seen: as many as were asked in this way."""

    ask: Callable[[SyncClient, int], Receipt[object]]
    see: Callable[[SyncClient, Path, Receipt[object]], int]


WAYS = (
    Way(reject, typed),
    Way(plan, on_board),
    Way(reject, raw),
    Way(depart, among_the_late),
    Way(reject, over_http),
    Way(depart, by_route),
    Way(depart, by_hour),
)


def ask_and_look(
    client: SyncClient, data: Path, asks: int, trouble: Trouble | None = None, ways: Sequence[Way] = WAYS
) -> list[tuple[str, int, int]]:
    """Ask in all ways; returns where it was not seen, how many it should have been, and how many were."""
    missed, done = list[tuple[str, int, int]](), Counter[Callable[..., object]]()
    for n in range(asks):
        ask, see = ways[n % len(ways)]
        receipt = ask(client, n)
        done[ask] += 1
        if trouble is not None:
            trouble.asked()
        seen = see(client, data, receipt)
        if seen != done[ask]:
            missed.append((see.__name__, done[ask], seen))
    return missed


def check_that_all_is_seen(settings: Settings, worker: Part, projector: Part, asks: int, random_seed: int) -> None:
    """Ask and look so many times, while both are killed and tables are swapped. Fails at the first miss."""
    prepare(flights, settings, SystemClock())
    with parts(worker, projector), SyncClient(flights, settings=settings) as client:
        for part in (worker, projector):
            part.start()
        trouble = Trouble(random.Random(random_seed), projector, worker)
        with trouble.going_on():
            assert ask_and_look(client, settings.data, asks, trouble) == []
        eventually(lambda: answers(projector), "the projector answers", projector)
        shown = answer_after(
            settings.data,
            "SELECT max(generation) AS g FROM flights.freshness",
            QueryFormat.JSONL,
            [],
            wait_seconds=DEADLINE_SECONDS,
            stale=False,
        )
    print(f"{asks} asks, {trouble.kills} kills, in the end {shown[0].decode().strip()}")
    assert trouble.kills >= asks // ASKS_PER_KILL - 1


@pytest.mark.parametrize("nth", range(-(-ASKS // ASKS_PER_TEST)))
def test_what_was_asked_is_seen_whatever_is_killed_and_swapped(tmp_path: Path, nth: int) -> None:
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    worker, projector = Part(tmp_path, "worker"), Part(tmp_path, "projector")
    check_that_all_is_seen(Settings(data=tmp_path / "data"), worker, projector, min(ASKS, ASKS_PER_TEST), SEED + nth)


@pytest.mark.parametrize(
    "way", [way for way in WAYS if way.see not in (raw, over_http)], ids=lambda way: way.see.__name__
)
def test_without_the_wait_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    monkeypatch.setattr(reading_module, "behind_in", lambda *_: None)
    settings = Settings(data=tmp_path / "data")
    prepare(flights, settings, SystemClock())
    worker, projector = Part(tmp_path, "worker"), Part(tmp_path, "projector")
    with parts(worker, projector), SyncClient(flights, settings=settings) as client:
        for part in (worker, projector):
            part.start()
        assert ask_and_look(client, settings.data, 10, ways=(way,))
