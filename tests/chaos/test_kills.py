"""kill -9 at random times and at every failpoint, over worker and projector and the engine in it.

`make chaos` runs 200,000 events with 140 random kills, three quarters of them of the projector.

A run prints its random seed; MAGNETAR_CHAOS_SEED repeats it.
"""

import json
import os
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from magnetar.pipelines import Outgoing, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import FAILPOINTS as WORKER_FAILPOINTS
from magnetar.projections.range_loop import FAILPOINTS as RANGE_FAILPOINTS

from examples.flights import demo
from examples.flights.data import commands, expected, rows
from examples.flights.pipeline import flights
from tests.chaos.comparing import Watch, stored, unacknowledged, wrong_in_history, wrong_in_mirror
from tests.chaos.comparing_projections import wrong_in_projections
from tests.chaos.processes import DEADLINE_SECONDS, Part, answers, eventually, parts

SEED = int(os.environ.get("MAGNETAR_CHAOS_SEED", secrets.randbelow(1 << 32)))
FLIGHTS = int(os.environ.get("MAGNETAR_CHAOS_FLIGHTS", "3500"))
KILLS = int(os.environ.get("MAGNETAR_CHAOS_KILLS", "10"))
JANUARY = 27_004
"""Its flights."""
CHUNK, BACKLOG = 100, 400
PAUSE = ("--pause", "0.01")


class Lives:
    """A part that is killed again and again. Each of its lives has one failpoint armed, until all have struck."""

    def __init__(self, part: Part, failpoints: Sequence[str], passings_max: int, dice: random.Random) -> None:
        self.part = part
        self.struck: list[str] = []
        self._left = [(name, dice.randint(1, passings_max)) for name in dice.sample(failpoints, len(failpoints))]
        self._killed_at_random = False

    @property
    def is_over(self) -> bool:
        """Whether every failpoint has struck."""
        return not self._left

    def begin(self) -> None:
        """Start the next life."""
        armed = [f"--at={name}:{passing}:KILL" for name, passing in self._left[:1]]
        self._killed_at_random = False
        self.part.start(*armed)

    def kill(self) -> None:
        """A kill at a random time."""
        self._killed_at_random = True
        self.part.kill()

    def ended(self) -> None:
        """Note how the last life ended."""
        self.struck.append("" if self._killed_at_random else self._left.pop(0)[0])


class KilledRun:
    """Sends commands as they are decided, kills on schedule, and starts again what is dead.

    Times are counted in commits, so that a slow machine gets the same run as a fast one.
    """

    def __init__(self, folder: Path, sent: Iterator[Outgoing], total: int, dice: random.Random) -> None:
        self.data = folder / "data"
        self.worker = Lives(Part(folder, "worker", *PAUSE), WORKER_FAILPOINTS, 4, dice)
        self._decoding: dict[str, str] = {}
        projector = Part(folder, "projector", *PAUSE, settings=self._decoding)
        self.projector = Lives(projector, RANGE_FAILPOINTS, 16, dice)
        self.lives = (self.worker, self.projector)
        self.unacknowledged = 0
        self._sent = sent
        self._dice = dice
        # The last fifth is kept for failpoints that have not struck by then.
        victims = [*[self.worker] * (KILLS // 4), *[self.projector] * (KILLS - KILLS // 4)]
        self._kills = [(dice.uniform(0, 0.8 * total), victim) for victim in victims]
        self._kills.sort(key=lambda kill: kill[0])

    def run(self, client: SyncClient) -> None:
        """Until all kills have struck; then the rest of the commands is sent, and nobody is killed any more."""
        for each in self.lives:
            each.begin()
        sent, deadline, watch = 0, time.monotonic() + (1 + KILLS / 10) * DEADLINE_SECONDS, Watch(self.data)
        while self._kills or not all(each.is_over for each in self.lives):
            decided = watch.messages()
            if self._kills and self._kills[0][0] <= decided:
                time.sleep(self._dice.uniform(0, 0.1))
                self._kills.pop(0)[1].kill()
            if sent - decided < BACKLOG:
                sent += sum(client.send_many(islice(self._sent, CHUNK)))
            self._start_again()
            time.sleep(0.02)
            assert time.monotonic() < deadline, f"not killed: {self._kills} {[each.struck for each in self.lives]}"
        watch.close()
        self._start_again()
        list(client.send_many(self._sent))

    def _start_again(self) -> None:
        for each in self.lives:
            if each.part.is_dead():
                each.ended()
                if each is self.worker:
                    self.unacknowledged += unacknowledged(self.data) > 0
                else:  # what the last life had begun is ended by one that decodes the other way
                    self._decoding["MAGNETAR_DECODING"] = ("engine", "python")[each.part.lives % 2]
                each.begin()

    def unrecorded(self) -> dict[str, int]:
        """How many kills of the projector left a range that was begun, by how far its insert had come.

        At least those of the failpoints, whichever table they struck in; or as many as the mirror's tables showed.
        """
        shown = {"missing": 0, "half": 0}
        for line in self.projector.part.output.splitlines():
            if line.startswith("unfinished "):
                left = json.loads(line.split(" ", 1)[1])
                shown["missing"] += any(top < last for _, _, last, top, *_ in left)
                shown["half"] += any(top == last and events < should for _, _, last, top, should, events in left)
        struck = self.projector.struck
        return {
            "missing": max(shown["missing"], struck.count("after_pending")),
            "half": max(shown["half"], struck.count("between_tables")),
            "whole": struck.count("after_insert"),
        }


@pytest.mark.xdist_group("chaos")
def test_after_kills_at_random_times_and_at_every_failpoint_all_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    dice, slice_ = random.Random(SEED), list(islice(rows(all_months=FLIGHTS > JANUARY), FLIGHTS))
    print(f"random seed {SEED}: repeat with MAGNETAR_CHAOS_SEED={SEED}")
    want, settings = expected(slice_), Settings(data=tmp_path / "data")
    prepare(flights, settings, SystemClock())
    run = KilledRun(tmp_path, demo.outgoing(commands(iter(slice_)), set()), want.commands, dice)
    worker, projector = run.worker.part, run.projector.part
    with parts(worker, projector):
        with SyncClient(flights, settings=settings) as client:
            run.run(client)
        eventually(
            lambda: answers(projector) and demo.commits_in_tables(settings.data) >= want.commands,
            "all commits are in the tables",
            worker,
            projector,
        )
        assert projector.lives > KILLS - KILLS // 4
        unrecorded = run.unrecorded()
        print(
            f"{want.commands} commands, {worker.lives - 1} kills of the worker, {projector.lives - 1} of the projector"
        )
        print(f"a stored commit unacknowledged: {run.unacknowledged}; an insert unrecorded: {unrecorded}")
        logs = stored(settings.data)
        assert wrong_in_history(logs) == []
        assert wrong_in_mirror(partial(demo.ask, settings.data), logs) == []
        assert wrong_in_projections(partial(demo.ask, settings.data), logs) == []
        assert demo.report(settings.data, want) == 0
    assert run.unacknowledged + sum(unrecorded.values()) >= 5
    assert run.unacknowledged
