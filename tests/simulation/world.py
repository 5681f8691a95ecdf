"""The world of a run: shipped workers and range loops as processes, switched, frozen and killed at their effects."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog
from magnetar.pipelines.worker import Worker, WorkerOptions
from magnetar.projections import Fold
from magnetar.projections.range_loop import RangeLoop, RangeStore
from magnetar.schemas import LeaseLost, LogUnavailable, StoreUnavailable
from magnetar.schemas.checkpoint_block import CHECKPOINT_JSON

from tests.simulation.account import RELEASES, SCHEMA, SCHEMAS
from tests.simulation.choices import Choices
from tests.simulation.client import CHECKPOINTS, COMMANDS, EVENTS, PARTITIONS, Client
from tests.simulation.sim_log import SimBroker, SimLog
from tests.simulation.sim_store import TABLES, SimStore
from tests.simulation.sim_tables import TABLES as KINDS
from tests.simulation.sim_tables import TableStore
from tests.simulation.stage import EFFECT_MS, FAULTS, Crash, Process, Stage

WORKERS: Final = 3
PROJECTORS: Final = 2
CLIENTS: Final = 2
OPTIONS: Final = WorkerOptions(
    chunk_messages_max=4,
    append_timeout_seconds=0.15,
    claim_timeout_seconds=0.3,
    lookup_timeout_seconds=0.1,
    pause_seconds=0.01,
    checkpoint_commits=6,
    states_max=1,
)
FREEZES_MS: Final = (30, 100, 400, 1500)
BURST_MAX: Final = 40
TURNS_TO_DRAIN: Final = 3000
TABLES_FROM: Final = 1_000_000
"""From this seed on, projectors feed the tables of a Rows and of a Fold, and not the mirror."""
NEVER_MS: Final = 1 << 60
"""When a process wakes that was taken out of a run to make its schedule smaller."""


class World:
    """One run. The same seed, or the same decisions, give the same run."""

    def __init__(
        self, seed: int, *, repeated: Mapping[str, int] | None = None, mirrored: bool = True, tracing: bool = False
    ) -> None:
        self.seed = seed
        self.choices = Choices(seed, repeated)
        self.stage = Stage(self.choices)
        self.broker = SimBroker(self.stage)
        self.store = SimStore(self.stage)
        self.tables: dict[type[Any], TableStore] = {}
        if seed >= TABLES_FROM:
            mirrored = False
            self.tables = {kind: TableStore(self.stage, is_fold=issubclass(kind, Fold)) for kind in KINDS}
        self.errors: list[str] = []
        self.clients: list[Client] = []
        self.mirrored = mirrored
        self._tracing = tracing
        self._processes: list[Process] = []
        self._last: Process | None = None
        self._logs: dict[str, SimLog] = {}
        self._unnoticed: list[SimLog] = []
        self._started = 0
        log = SimLog(self.broker)
        log.provision(CHECKPOINTS, partitions=PARTITIONS, schema=CHECKPOINT_JSON)
        log.provision(COMMANDS, partitions=PARTITIONS, schema=SCHEMA.command_json)
        for schema in SCHEMAS:
            log.provision(EVENTS, partitions=PARTITIONS, schema=schema.commit_json)
        self._releases = 1 + self.choices.pick("releases", len(RELEASES), at=0)

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self, turns: int) -> None:
        """So many turns with faults. Then nothing goes wrong any more, and a last healthy worker finishes the work."""
        with quiet_logs():
            try:
                for start, count in ((self._client, CLIENTS), (self._worker, WORKERS), (self._projector, PROJECTORS)):
                    for _ in range(count):
                        start()
                for at in range(1, turns + 1):
                    self._turn(at)
                self._finish_work()
            finally:
                for process in list(self._processes):
                    self._end(process)

    def _turn(self, at: int) -> None:
        stage, choices = self.stage, self.choices
        if choices.is_given("skipped", at):
            return
        stage.ms += EFFECT_MS
        if choices.strikes("crash", FAULTS["crash"], at=at):
            self._crash(self._processes[choices.pick("who crashes", len(self._processes), at=at)])
        if choices.strikes("freeze", FAULTS["freeze"], at=at):
            self._freeze(self._processes[choices.pick("who freezes", len(self._processes), at=at)], at)
        if choices.strikes("broker", 12, at=at) and self._broker_acts(at):
            return
        ready = self._ready()
        other = choices.pick("who", 8, at=at)
        if other == 0 and self._last in ready and not self._last.waits:
            chosen = self._last
        else:
            chosen = next_after(self._last, ready, self._processes, max(0, other - 1))
        self._go_on(chosen, choices.pick("burst", 6, at=at) or BURST_MAX)

    def _freeze(self, process: Process, at: int) -> None:
        process.wakes_ms = self.stage.ms + FREEZES_MS[self.choices.pick("how long", len(FREEZES_MS), at=at)]
        process.waits = True
        self.stage.note(f"{process.name} freezes at {process.at}")

    def _ready(self) -> list[Process]:
        ready = [p for p in self._processes if p.wakes_ms <= self.stage.ms]
        if not ready:
            self.stage.ms = min(p.wakes_ms for p in self._processes)
            ready = [p for p in self._processes if p.wakes_ms <= self.stage.ms]
        return ready

    def _go_on(self, process: Process, effects: int) -> None:
        stage = self.stage
        came_from, passed = process.at, []
        self._last = stage.current = process
        try:
            for _ in range(effects):
                stage.ms += EFFECT_MS
                process.waits = False
                process.greenlet.switch()
                passed.append(process.at)
                if process.waits:
                    break
        except Exception:  # noqa: BLE001  whatever gets out of a process is a violation
            self.errors.append(f"{process.name} died:\n{traceback.format_exc()}")
            self._processes.remove(process)
            self._restart(process)
        finally:
            stage.current = None
        if self._tracing and set(passed) != {came_from}:
            stage.note(f"{process.name}: {came_from} → {' → '.join(passed)}{' …' if process.waits else ''}")

    def _broker_acts(self, at: int) -> bool:
        """Something comes through that was on its way; or a death is noticed."""
        what = self.choices.pick("what the broker does", 3, at=at)
        if what == 0:
            return self.broker.land_something() or self._store_lands_something()
        if what == 1 or not self._unnoticed:
            return self._store_lands_something() or self.broker.land_something()
        self._unnoticed.pop(0).close()
        self.stage.note("the broker notices a death")
        return True

    def _store_lands_something(self) -> bool:
        return any(store.land_something() for store in (self.store, *self.tables.values()))

    # --- processes --------------------------------------------------------------------------------------------------

    def _start(self, kind: str, run: Callable[[str, SimLog], None]) -> None:
        self._started += 1
        name = f"{kind}-{self._started}"
        log = self._logs[name] = SimLog(self.broker)
        process = Process(name, lambda: run(name, log))
        if self.stage.faults_on and self.choices.is_given(f"muted {name}", 1):
            process.wakes_ms = NEVER_MS
        self._processes.append(process)

    def _client(self) -> None:
        def run(name: str, log: SimLog) -> None:
            client = Client(self.stage, log, f"{self.seed}/{name}")
            self.clients.append(client)
            client.run()

        self._start("client", run)

    def _worker(self) -> None:
        """A worker of one of the releases that run side by side; once all is well, of the newest."""
        release = len(RELEASES) - 1
        if self.stage.faults_on:
            release = self.choices.pick("release", self._releases, at=self._started)

        def run(name: str, log: SimLog) -> None:
            worker = Worker(
                log,
                RELEASES[release],
                SCHEMAS[release],
                partitions=PARTITIONS,
                name=name,
                clock=self.stage,
                random=random.Random(f"{self.seed}/{name}"),
                options=OPTIONS,
                failpoint=self.stage.switch,
            )
            refused = 0
            while True:
                worker.step(timeout_seconds=0.02)
                if len(worker.refused) > refused:
                    refused = len(worker.refused)
                    self.stage.note(f"{name}: refuses a partition")
                    if release == len(RELEASES) - 1:
                        raise AssertionError(f"{name} refuses what it has to know: {worker.refused}")

        self._start("worker", run)

    def _projector(self) -> None:
        if not self.mirrored and not self.tables:
            return

        def run(name: str, log: SimLog) -> None:
            nonces = random.Random(f"{self.seed}/{name}")
            stores: list[RangeStore] = [self.store] if self.mirrored else []
            stores += [KINDS[kind](store, kind) for kind, store in self.tables.items()]
            loops: dict[tuple[int, int], RangeLoop] = {}
            while True:
                for part in [(nth, partition) for nth in range(len(stores)) for partition in range(PARTITIONS)]:
                    partition = part[1]
                    try:
                        if part not in loops:
                            loops[part] = RangeLoop(
                                stores[part[0]],
                                partition,
                                lambda after, p=partition: log.reader(EVENTS, p, after=after),  # type: ignore[misc]
                                nonce=nonces.randbytes(8).hex(),
                                range_commits_max=3,
                            )
                        loops[part].step(timeout_seconds=0.005)
                    except (LeaseLost, StoreUnavailable, LogUnavailable):
                        loops.pop(part, None)
                        self.stage.sleep(0.01 + nonces.random() / 50)

        self._start("projector", run)

    def _restart(self, process: Process) -> None:
        {"client": self._client, "worker": self._worker, "projector": self._projector}[process.name.split("-")[0]]()

    def _crash(self, process: Process) -> None:
        self.stage.note(f"{process.name} crashes at {process.at}")
        self._end(process)
        log = self._logs[process.name]
        if self.stage.strikes("death is noticed late"):
            self._unnoticed.append(log)
        else:
            log.close()
        self._restart(process)

    def _end(self, process: Process) -> None:
        self._processes.remove(process)
        process.dead = True
        self.stage.current = process
        try:
            process.greenlet.throw(Crash)
        except Crash:
            pass
        finally:
            self.stage.current = None

    # --- the end ----------------------------------------------------------------------------------------------------

    def _finish_work(self) -> None:
        stage = self.stage
        stage.note("nothing goes wrong any more")
        stage.faults_on = False
        for _ in range(3):  # whoever was frozen wakes and goes on as if nothing had been
            for process in [p for p in self._processes if p.wakes_ms < NEVER_MS and not p.name.startswith("client")]:
                process.wakes_ms = 0
                self._go_on(process, BURST_MAX)
            while self.broker.land_something() or self._store_lands_something():
                pass
        for process in list(self._processes):
            self._end(process)
            self._logs[process.name].close()
        for log in self._unnoticed:
            log.close()
        stage.note("all processes end; one worker and one projector finish the work")
        self._worker()
        self._projector()
        if not self._drain(self._is_decided):
            self.errors.append("commands are left undecided or unacknowledged")
        self._ask_again()
        if self.mirrored and not self._drain(self._is_mirrored):
            self.errors.append("the mirror stands still")
        if self.tables and not self._drain(self._is_fed):
            self.errors.append("a table stands still")

    def _drain(self, done: Callable[[], bool]) -> bool:
        for _ in range(TURNS_TO_DRAIN):
            if done():
                return True
            ready = self._ready()
            self._go_on(next_after(self._last, ready, self._processes, 0), BURST_MAX)
        return done()

    def _is_decided(self) -> bool:
        subscriptions = [p.subscription for p in self.broker.topic(COMMANDS).partitions]
        return all(each.acknowledged == len(each.messages) for each in subscriptions)

    def _is_mirrored(self) -> bool:
        from tests.counting import counting

        partitions = self.broker.topic(EVENTS).partitions
        return all(
            len(self.store.rows.get((p.number, table), ())) >= len(counting(p.messages))
            for p in partitions
            for table in TABLES
        )

    def _is_fed(self) -> bool:
        from tests.simulation.judge import lacking

        return not any(lacking(self, kind, partition) for kind in self.tables for partition in range(PARTITIONS))

    def _ask_again(self) -> None:
        """Every client asks once more for what it has no answer to: with a healthy worker, it gets one."""
        from tests.simulation.judge import unanswered

        for client, sent in unanswered(self):
            client.publish(sent)
        if not self._drain(self._is_decided):
            self.errors.append("commands that were asked again are left undecided or unacknowledged")
        self.errors += [f"an ask was never answered: {sent.asked}" for _, sent in unanswered(self)]


def next_after(last: Process | None, ready: list[Process], order: list[Process], skip: int) -> Process:
    """The next ready process behind the last one, in turn."""
    at = order.index(last) + 1 if last in order else 0
    inturn = [p for p in (*order[at:], *order[:at]) if p in ready]
    return inturn[skip % len(inturn)]


@contextmanager
def quiet_logs():
    """No log lines: thousands of runs would write millions."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
