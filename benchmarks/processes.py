"""One worker process on a backlog, and two: how much more the second one adds."""

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from typing import Final, NamedTuple

import structlog
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.runtime import collect_rarely, provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.pipelines.worker import Worker

from .broker import fresh
from .domain import Box
from .worker import PARTITIONS, SCHEMA, boxes, count, fill

DEADLINE_SECONDS: Final = 300.0
LOOK_SECONDS: Final = 0.002
"""How often the queues are looked at: several cannot be waited for at once."""


class Shared(NamedTuple):
    """So many processes on one backlog."""

    processes: int
    per_second: float
    counted: int
    cores: float
    """How many cores all of them kept busy; the broker had the others."""


class Part(NamedTuple):
    """What one process did."""

    decided: int
    last_at: float
    cpu_seconds: float


def decide_when_told(settings: Settings, name: str, ready: Barrier, all_done: Event, parts: "Queue[Part]") -> None:
    """Take part in the topic; wait for the backlog; then decide until everybody together has decided all."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    log = open_log(settings, SystemClock())
    worker = Worker(
        log, Box, SCHEMA, partitions=PARTITIONS, name=name, clock=SystemClock(), random=random.SystemRandom()
    )
    collect_rarely()
    ready.wait(DEADLINE_SECONDS)
    ready.wait(DEADLINE_SECONDS)
    started, last_at = sum(os.times()[:2]), time.monotonic()
    part = Part(0, last_at, 0.0)
    while not all_done.is_set():
        worker.step(timeout_seconds=0.2)
        if worker.decided > part.decided:
            parts.put(part := Part(worker.decided, time.monotonic(), sum(os.times()[:2]) - started))
    worker.close()
    log.close()


def share(settings: Settings, processes: int, commands: int) -> Shared:
    """Let so many processes decide a backlog together."""
    log = open_log(settings, SystemClock())
    provision(boxes, log)
    context = multiprocessing.get_context("spawn")
    ready, all_done = context.Barrier(processes + 1), context.Event()
    queues: list[Queue[Part]] = [context.Queue() for _ in range(processes)]
    running = [
        context.Process(target=decide_when_told, args=(settings, f"w{n}", ready, all_done, each), daemon=True)
        for n, each in enumerate(queues)
    ]
    for process in running:
        process.start()
    ready.wait(DEADLINE_SECONDS)  # all have subscribed: the partitions are spread
    fill(log, commands)
    ready.wait(DEADLINE_SECONDS)
    start = time.monotonic()
    parts = _until_all_decided(queues, commands)
    all_done.set()
    seconds = max(part.last_at for part in parts) - start
    for process in running:
        process.join(DEADLINE_SECONDS)
    counted = count(log)
    log.close()
    return Shared(processes, commands / seconds, counted, sum(part.cpu_seconds for part in parts) / seconds)


def _until_all_decided(queues: "list[Queue[Part]]", commands: int) -> list[Part]:
    parts: dict[int, Part] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while sum(part.decided for part in parts.values()) < commands:
        assert time.monotonic() < deadline, "the backlog was not decided in time"
        time.sleep(LOOK_SECONDS)
        for nth, each in enumerate(queues):
            while not each.empty():
                parts[nth] = each.get()
    return list(parts.values())


def run(broker: Settings, commands: int) -> Iterator[Shared]:
    """Measure one process and two, each on a log of its own."""
    for processes in (1, 2):
        with fresh(broker) as settings:
            yield share(settings, processes, commands)
