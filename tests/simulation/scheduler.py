"""A seeded scheduler: several shipped workers and projectors, switched at every effect, with faults between any two."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import partial

import greenlet
import structlog
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.memory import Faults, MemoryBroker, MemoryLog, MemoryReader
from magnetar.pipelines.worker import Worker, WorkerOptions
from magnetar.projections.range_loop import RangeLoop
from magnetar.schemas import LeaseLost, MessageId, StoreUnavailable, Topic, TopicKind, partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope

from tests.simulation.domain import SCHEMA, Add, Tally
from tests.simulation.store_model import StoreModel

PARTITIONS = 2
WORKERS = 3
PROJECTORS = 2
COMMANDS = Topic("sim", "Tally", TopicKind.COMMANDS)
EVENTS = Topic("sim", "Tally", TopicKind.EVENTS)
START_MS = 1_700_000_000_000
OPTIONS = WorkerOptions(chunk_messages_max=4, claim_timeout_seconds=2.0, pause_seconds=0.01)

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


class Crash(BaseException):
    """A process is killed: nothing of it runs any more, not even what catches errors."""


class SimulatedClock:
    """Time goes on by a millisecond a step, and by what is slept."""

    def __init__(self, switch: Callable[[str], None]) -> None:
        self.ms = START_MS
        self._switch = switch

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self._switch("sleep")


class Chance(Faults):
    """Faults by chance, each now and then, and none once the run is being healed."""

    def __init__(self, rng: random.Random, allowed: frozenset[str] | None) -> None:
        self._rng = rng
        self._allowed = allowed
        self.healed = False
        self.happened: list[str] = []

    def happens(self, name: str, one_in: int) -> bool:
        drawn = self._rng.randrange(one_in) == 0
        if self.healed or not drawn or (self._allowed is not None and name not in self._allowed):
            return False
        self.happened.append(name)
        return True

    def confirmation_is_lost(self) -> bool:
        return self.happens("lost confirmation", 25)

    def connection_breaks(self) -> bool:
        return self.happens("broken connection", 40)

    def lands_late(self) -> bool:
        return self.happens("late landing", 2)

    def is_sent_twice(self) -> bool:
        return self.happens("resend", 30)

    def acknowledgement_is_lost(self) -> bool:
        return self.happens("lost acknowledgement", 10)

    def reconnects(self) -> bool:
        return self.happens("reconnect", 40)

    def grant_is_wrong(self) -> bool:
        return self.happens("wrong grant", 6)


class Actor:
    """One process."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self.greenlet = greenlet.greenlet(run)
        self.frozen_until = -1
        self.at = "start"


class Simulation:
    """One run. The same seed, steps and allowed faults give the same run."""

    def __init__(self, seed: int, *, allowed: frozenset[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.faults = Chance(self.rng, allowed)
        self.clock = SimulatedClock(self.switch)
        self.broker = MemoryBroker()
        self.store = StoreModel(self.switch)
        self.trace: list[str] = []
        self.errors: list[str] = []
        self.published: list[tuple[int, int, str | None]] = []
        self._sent: list[tuple[int, Entry]] = []
        self._codec = CommandCodec(SCHEMA)
        self._names = iter(range(10_000))
        self._main = greenlet.getcurrent()
        self._step = 0
        self._direct = MemoryLog(self.broker, self.clock)
        self._direct.provision(COMMANDS, partitions=PARTITIONS, schema=SCHEMA.command_json)
        self._direct.provision(EVENTS, partitions=PARTITIONS, schema=SCHEMA.commit_json)
        self.inbox = self._direct.inbox()
        self._actors: list[Actor] = []
        self._logs: dict[str, MemoryLog] = {}
        self.workers: dict[str, Worker] = {}

    # --- processes --------------------------------------------------------------------------------------------------

    def switch(self, at: str) -> None:
        """Called by whatever runs before each effect: the scheduler decides who goes on."""
        current = greenlet.getcurrent()
        if current is self._main:
            return
        for actor in self._actors:
            if actor.greenlet is current:
                actor.at = at
        self._main.switch()

    def start_worker(self) -> None:
        """Start a process that decides."""
        name = f"worker-{next(self._names)}"
        log = self._logs[name] = MemoryLog(self.broker, self.clock, hook=self.switch, faults=self.faults)

        def run() -> None:
            worker = self.workers[name] = Worker(
                log,
                Tally,
                SCHEMA,
                partitions=PARTITIONS,
                name=name,
                clock=self.clock,
                random=self.rng,
                options=OPTIONS,
                failpoint=self.switch,
            )
            while True:
                worker.step(timeout_seconds=0.005)

        self._actors.append(Actor(name, run))

    def start_projector(self) -> None:
        """Start a process that mirrors; it takes leases anew when it has lost one."""
        name = f"projector-{next(self._names)}"
        log = self._logs[name] = MemoryLog(self.broker, self.clock, hook=self.switch, faults=self.faults)

        def run() -> None:
            loops: dict[int, RangeLoop] = {}
            while True:
                for partition in range(PARTITIONS):
                    try:
                        if partition not in loops:
                            nonce = self.rng.randbytes(8).hex()
                            loops[partition] = RangeLoop(
                                self.store,
                                partition,
                                partial(self._feed, log, partition),
                                nonce=nonce,
                                range_commits_max=3,
                            )
                        loops[partition].step(timeout_seconds=0.005)
                    except (LeaseLost, StoreUnavailable):
                        loops.pop(partition, None)
                        self.clock.sleep(0.01)

        self._actors.append(Actor(name, run))

    def _feed(self, log: MemoryLog, partition: int, after: MessageId | None) -> MemoryReader:
        return log.reader(EVENTS, partition, after=after)

    def crash(self, actor: Actor) -> None:
        """Kill a process; the broker notices that its connection is gone."""
        self._actors.remove(actor)
        if actor.greenlet:
            with contextlib.suppress(Crash):
                actor.greenlet.throw(Crash)
        self._logs[actor.name].close()

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """So many steps with faults, then healing: everything ends, and healthy processes finish the work."""
        for _ in range(WORKERS):
            self.start_worker()
        for _ in range(PROJECTORS):
            self.start_projector()
        for self._step in range(steps):
            self._turn()
        self._heal()

    def _turn(self) -> None:
        self.clock.ms += 1
        draw = self.rng.randrange(100)
        if draw < 12:
            self._publish()
        elif draw < 15 and self.faults.happens("crash", 1):
            self._crash_one()
        elif draw < 18 and self.faults.happens("freeze", 1):
            actor = self.rng.choice(self._actors)
            actor.frozen_until = self._step + self.rng.randrange(10, 80)
            self.trace.append(f"{actor.name} frozen at {actor.at}")
        elif draw < 26:
            self._land()
        else:
            awake = [actor for actor in self._actors if actor.frozen_until < self._step]
            if awake:
                self._let(self.rng.choice(awake))

    def _let(self, actor: Actor) -> None:
        self.trace.append(f"{actor.name} goes on from {actor.at}")
        actor.greenlet.switch()

    def _crash_one(self) -> None:
        actor = self.rng.choice(self._actors)
        self.trace.append(f"{actor.name} crashes at {actor.at}")
        self.crash(actor)
        if actor.name.startswith("worker"):
            self.start_worker()
        else:
            self.start_projector()

    def _land(self) -> None:
        partition = self.rng.randrange(PARTITIONS)
        if self.broker.land(EVENTS, partition, self.clock.ms):
            self.trace.append(f"an entry lands on {partition}")
        elif self.store.land(self.rng):
            self.trace.append("a slow insert is done")

    def _publish(self) -> None:
        """A client sends a command, a repeat of one, or something that is none."""
        id = f"tally-{self.rng.randrange(3)}"
        partition = partition_of(id, PARTITIONS)
        kind = self.rng.randrange(12)
        if kind == 0:
            self._put(partition, Entry(id, b"junk"), None)
        elif kind == 1:
            self._put(1 - partition, self._command(id, len(self.published)), None)
        elif kind <= 3 and self.published:
            number = self.rng.randrange(len(self.published))
            entry = self._command(id, number)
            original = next((e for n, e in self._sent if n == number), entry)
            self._put(partition_of(original.key, PARTITIONS), original, number)
        else:
            self._put(partition, self._command(id, len(self.published)), len(self.published))

    def _put(self, partition: int, entry: Entry, number: int | None) -> None:
        self.trace.append(f"published {number} on {partition}")
        found = self.broker.topic(COMMANDS).partitions[partition]
        found.store(entry, self.clock.ms, 1)
        self.published.append((partition, len(found.messages), None if number is None else str(number)))
        if number is not None:
            self._sent.append((number, entry))

    def _command(self, id: str, number: int) -> Entry:
        amount = self.rng.choice((0, 1, 2, 5, 13))
        envelope = CommandEnvelope(id, uuid7(self.clock.ms, number), self.clock.ms * 1000, reply_to=self.inbox.address)
        return Entry(id, self._codec.encode(envelope, Add(amount)))

    def _heal(self) -> None:
        """No more faults: what is frozen wakes, what was unsure settles, and new processes finish the work."""
        self.faults.healed = True
        for actor in self._actors:
            actor.frozen_until = -1
        for _ in range(60):
            self._step += 1
            self.clock.ms += 20
            self._let(self.rng.choice(self._actors))
        for actor in list(self._actors):
            self.crash(actor)
        self.trace.append("healed")
        self.start_worker()
        self.start_projector()
        for _ in range(4000):
            if self._is_done():
                return
            self.clock.ms += 1
            for actor in self._actors:
                actor.greenlet.switch()
        self.errors.append("the work is not done: commands are left, or the mirror stands still")

    def _is_done(self) -> bool:
        commands, events = self.broker.topic(COMMANDS), self.broker.topic(EVENTS)
        decided = all(p.acknowledged == len(p.messages) for p in commands.partitions)
        return decided and self.store.has_caught_up(events.partitions)

    def close(self) -> None:
        """End all processes."""
        for actor in list(self._actors):
            self.crash(actor)


def simulate(seed: int, steps: int, *, allowed: frozenset[str] | None = None) -> Simulation:
    """Run a simulation to its end."""
    simulation = Simulation(seed, allowed=allowed)
    try:
        simulation.run(steps)
    finally:
        simulation.close()
    return simulation
