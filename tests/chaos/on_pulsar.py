"""Workers and a projector on a real broker, under load from an oracle, and what is done to them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import NamedTuple

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import SUBSCRIPTION, PulsarLog

from examples.flights import demo
from examples.flights.pipeline import flights
from tests.chaos.comparing import CODEC, COMMANDS, Stored, stored_in, wrong_in_history, wrong_in_mirror
from tests.chaos.comparing_projections import wrong_in_projections
from tests.chaos.oracle import Told, read_journal
from tests.chaos.processes import Part, answers, eventually
from tests.counting import counting
from tests.pulsar_rig import Existing, Standalone


class OraclePart(Part):
    """The oracle as a process."""

    module = "tests.chaos.oracle"


class Blow(NamedTuple):
    """Something that was done, and when. `victim` is the name of a worker, empty for the broker."""

    kind: str
    at_ms: int
    victim: str = ""


class PulsarRun:
    """One run, in a tenant of its own."""

    load: Sequence[str] = ()
    """Arguments of the oracle that say how much it asks."""

    def __init__(self, folder: Path, broker: Existing, random_seed: int, *sabotage: str) -> None:
        self.broker = broker
        self.data = folder / "data"
        self.blows: list[Blow] = []
        self.ended: list[str] = []
        """What has ended by itself, and its last words."""
        self._dice = random.Random(random_seed)
        self._tenant = broker.new_tenant()
        settings = broker.environment(self._tenant)
        self.workers = [
            Part(folder, "worker", *sabotage, name=f"worker-{letter}", settings=settings) for letter in "abc"
        ]
        self.projector = Part(folder, "projector", settings=settings)
        self._journal = folder / "journal"
        asked = ("--journal", str(self._journal), "--random-seed", str(random_seed), *self.load)
        self.oracle = OraclePart(folder, "oracle", *asked, settings=settings)
        self.parts = (*self.workers, self.projector, self.oracle)
        self._log: PulsarLog | None = None

    @property
    def log(self) -> PulsarLog:
        """The log, opened for looking at it."""
        if self._log is None:
            self._log = PulsarLog(
                self.broker.service_url, self.broker.admin_url, clock=SystemClock(), tenant=self._tenant
            )
        return self._log

    def told(self) -> list[Told]:
        """What the oracle has written down."""
        return read_journal(self._journal)

    def close(self) -> None:
        """Let go of the log."""
        if self._log is not None:
            self._log.close()

    # --- what is done -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start everything, and wait until commands are decided."""
        for worker in self.workers:
            self._start(worker)
        self.projector.start()
        eventually(self._is_provisioned, "the topics are there", *self.workers)
        self.oracle.start()
        self.until_told(100)

    def _is_provisioned(self) -> bool:
        self._look_after()  # two that make the same topic at once: one of them may fail
        topic = f"{self._tenant}/{COMMANDS}"
        return self.log._admin.partitions(topic) is not None and bool(self.log._admin.schemas(topic))

    def output(self) -> str:
        """What all workers have written."""
        return "".join(worker.output for worker in self.workers)

    def _start(self, worker: Part) -> None:
        worker.start("--name", life_of(worker, worker.lives + 1))

    def until_told(self, more: int) -> None:
        """Wait until so many more commands are known to be decided."""
        wanted = self._known() + more
        eventually(lambda: self._known() >= wanted, f"{more} more commands are decided", *self.parts)

    def _known(self) -> int:
        self._look_after()
        return sum(told.what in ("ok", "rejected") for told in self.told())

    def _look_after(self) -> None:
        """Start again what has ended by itself, as a supervisor would: without a broker, a start fails."""
        assert self.oracle.lives == 0 or not self.oracle.is_dead()
        for part in (*self.workers, self.projector):
            if part.exit_code is not None:
                self.ended.append(f"{part.name}: {part.output.strip().splitlines()[-1][:200]}")
                (self._start if part in self.workers else Part.start)(part)

    def strike(self, kind: str) -> None:
        """Do one thing, at a random time."""
        self.until_told(self._dice.randint(50, 300))
        strikes: dict[str, Callable[[], None]] = {
            "kill": self._kill_a_worker,
            "kill the projector": self._kill_the_projector,
            "freeze": self._freeze_a_worker,
            "kill the broker": self._kill_the_broker,
        }
        strikes[kind]()

    def _kill_a_worker(self) -> None:
        victim = self._dice.choice(self.workers)
        self._note("kill", victim)
        victim.kill()
        self._start(victim)

    def _kill_the_projector(self) -> None:
        self.projector.kill()
        self.projector.start()

    def _freeze_a_worker(self) -> None:
        """Stop it in its tracks until others have all that it had and have decided something, and wake it."""
        victim = self._dice.choice(self.workers)
        self._note("freeze", victim)
        victim.send(SIGSTOP)
        eventually(lambda: life_of(victim) not in self._active(), "all is taken over", *self.parts)
        self.until_told(100)
        victim.send(SIGCONT)

    def _active(self) -> set[str | None]:
        """Whom the broker gives commands to."""
        topic, active = f"{self._tenant}/{COMMANDS}", self.log._admin.active_consumer
        return {active(f"{topic}-partition-{n}", SUBSCRIPTION) for n in range(flights.partitions)}

    def _kill_the_broker(self) -> None:
        assert isinstance(self.broker, Standalone)
        self.blows.append(Blow("kill the broker", now_ms()))
        self.broker.kill()
        self.broker.start()

    def _note(self, kind: str, victim: Part) -> None:
        self.blows.append(Blow(kind, now_ms(), life_of(victim)))

    def finish(self) -> None:
        """Let the oracle come to its end: all that it has asked is known then."""
        self.until_told(100)
        self.oracle.end_input()
        eventually(self._is_over, "the oracle knows what became of all", *self.parts)
        self.oracle.stop()

    def _is_over(self) -> bool:
        if over := "done, " in self.oracle.output:
            return over
        self._look_after()
        return False

    def freeze_and_wake(self) -> list[str]:
        """One freeze past a take-over; what the oracle was told soon after it that does not stand in the log."""
        self.strike("freeze")
        seen = len(self.told())
        eventually(lambda: len(self.told()) > seen + 300, "300 more answers, or none", *self.parts)
        return [each for each in wrong_in_journal(self.told(), stored_in(self.log)) if each.startswith("told ")]

    # --- what is left -----------------------------------------------------------------------------------------------

    def judge(self) -> list[str]:
        """All that is wrong with log, journal and tables."""
        logs, told = stored_in(self.log), self.told()
        commits = sum(len(counting(each.events)) for each in logs)
        eventually(
            lambda: answers(self.projector) and demo.commits_in_tables(self.data) >= commits,
            f"{commits} commits are in the tables",
            self.projector,
        )
        print(f"{self.projector.lives - 1} kills of the projector")
        print(f"{commits} commits, {sum(each.what == 'unknown' for each in told)} times unknown for a while")
        print(f"{self.output().count('commands not given')} times a worker looked for commands that it was not given")
        print(*recovery_times(self.blows, logs, told), *self.ended, sep="\n")
        return [
            *(line for line in self.oracle.output.splitlines() if line.startswith("wrong: ")),
            *wrong_in_history(logs),
            *wrong_in_journal(told, logs),
            *wrong_in_mirror(partial(demo.ask, self.data), logs),
            *wrong_in_projections(partial(demo.ask, self.data), logs),
        ]


def life_of(worker: Part, life: int | None = None) -> str:
    """The name of a worker in one of its lives."""
    return f"{worker.name}.{life or worker.lives}"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def wrong_in_journal(told: Sequence[Told], logs: Sequence[Stored]) -> list[str]:
    """What a client was told that does not stand in the log exactly once and exactly so, and what it never learned."""
    found: list[str] = []
    stand: dict[str, Told] = {}
    for partition, each in enumerate(logs):
        for message in counting(each.events):
            commit = CODEC.decode(message.payload)
            outcome = commit.rejection or commit.events[0]
            version = commit.version + len(commit.events)
            what = "rejected" if commit.rejection else "ok"
            place = Told(
                0, what, commit.command_id, commit.aggregate_id, repr(outcome), version, partition, commit.number
            )
            if commit.command_id in stand:
                found.append(f"{place} stands in the log a second time: {stand[commit.command_id]}")
            stand[commit.command_id] = place
    known = {each.command_id for each in told if each.what in ("ok", "rejected")}
    for line in told:
        if line.what == "unknown":
            if line.command_id not in known:
                found.append(f"never known: {line}")
        elif line._replace(at_ms=0) != stand.get(line.command_id):
            found.append(f"told {line}, and in the log stands {stand.get(line.command_id)}")
    return found


def recovery_times(blows: Sequence[Blow], logs: Sequence[Stored], told: Sequence[Told]) -> Iterator[str]:
    """For each blow, how long it took until all partitions that it hit had a new commit."""
    taken = [_Ownerships(each) for each in logs]
    for blow in blows:
        if blow.victim:
            seconds = [late for each in taken if (late := each.recovery(blow)) is not None]
        else:
            seconds = [_silence(blow, [each for each in told if each.partition == n]) for n in range(len(logs))]
        of = f" of {blow.victim}, which had {len(seconds)} partitions" if blow.victim else ""
        if seconds:
            yield f"{blow.kind}{of}: all decide again after {max(seconds):.1f} s, the first after {min(seconds):.1f} s"


class _Ownerships:
    """Who owned a partition when, as its claims tell it, and when each owner's first commit was made."""

    def __init__(self, stored: Stored) -> None:
        self._first: dict[bytes, int] = {}
        self._claims: list[tuple[int, str, bytes]] = []
        for message in counting(stored.events):
            self._first.setdefault(CODEC.decode(message.payload).owner, message.published_at_ms)
        for message in stored.events:
            commit = CODEC.decode(message.payload)
            if commit.outcome == "claim":
                self._claims.append((message.published_at_ms, commit.metadata["worker"], commit.owner))

    def recovery(self, blow: Blow) -> float | None:
        """Seconds from a blow against its owner to the first commit of the next one; None if another one had it."""
        before = [name for at_ms, name, _ in self._claims if at_ms <= blow.at_ms]
        if not before or before[-1] != blow.victim:
            return None
        later = [self._first[owner] for at_ms, _, owner in self._claims if at_ms > blow.at_ms and owner in self._first]
        return (min(later) - blow.at_ms) / 1000 if later else None


def _silence(blow: Blow, told: Sequence[Told]) -> float:
    """Seconds from a blow against the broker to the first answer behind what was under way when it came."""
    later = (each.at_ms for each in told if each.at_ms > blow.at_ms + 1000)
    return (next(later, blow.at_ms) - blow.at_ms) / 1000
