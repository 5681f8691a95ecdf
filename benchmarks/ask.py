"""What a client waits for an answer, idle and beside a stream of commands, and how many answers a second there are.

A worker in a process of its own, a client in this one, a sender in a third.
"""

import asyncio
import multiprocessing
import random
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from statistics import quantiles
from typing import Final, NamedTuple

from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.log import Entry
from magnetar.pipelines.settings import Settings, open_log
from magnetar.pipelines.supervisor import part_arguments
from magnetar.schemas import OutcomeUnknown, partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope

from magnetar import Client, Pipeline

from .broker import environment, fresh
from .domain import Box, Put
from .worker import COMMANDS, NOTE, PARTITIONS, SCHEMA, boxes

WORKER: Final = ("worker",)
AGGREGATES = 1000
WARM_UP = 64
ASK_SECONDS = 60
"""Who gets no answer for so long finds a worker that falls behind: no more is measured then."""
SENT_PER_SECOND = 5000
SEND_SECONDS = 0.01
"""Commands are sent when they are due by the clock, whatever the answers: how often it looks which are."""


class Waited(NamedTuple):
    """How long an ask took, in milliseconds, while so many commands came in each second."""

    p50_ms: float
    p99_ms: float
    sent_per_second: float = 0.0


class Answered(NamedTuple):
    """How long an ask took, idle and busy; and the rate with `in_flight` of them at once."""

    idle: Waited
    busy: Waited
    per_second: float
    in_flight: int


@contextmanager
def working(
    settings: Settings,
    pipeline: Pipeline = boxes,
    target: str = "benchmarks.worker:boxes",
    roles: Sequence[str] = WORKER,
) -> Generator[None]:
    """The parts of a pipeline that have these roles, each in a process of its own."""
    prepare(pipeline, settings, SystemClock())
    with ExitStack() as left:
        for role in roles:
            arguments = [*part_arguments(role, target), "--log-level", "error", "--data", str(settings.data)]
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, env=environment(settings))
            left.callback(process.communicate)  # closes its standard input: it ends
        yield


def waited(settings: Settings, asks: int) -> Waited:
    """How many milliseconds each of some asks took, one after the other, with pauses in which all comes to rest."""
    pause = random.Random(1)
    took: list[float] = []
    with SyncClient(boxes, settings=settings) as client:
        for n in range(WARM_UP):  # every partition has an owner then
            client.ask(Box, f"box-{n}", Put(1, ""), timeout_seconds=ASK_SECONDS)
        for n in range(asks):
            time.sleep(pause.uniform(0.0, 0.05))
            start = time.perf_counter()
            try:
                client.ask(Box, f"box-{n % AGGREGATES}", Put(1, ""), timeout_seconds=ASK_SECONDS)
            except OutcomeUnknown:
                return Waited(1000 * ASK_SECONDS, 1000 * ASK_SECONDS)
            took.append((time.perf_counter() - start) * 1000)
    found = quantiles(took, n=100)
    return Waited(found[49], found[98])


def send(settings: Settings, stop: Event, sent: "Queue[float]") -> None:
    """Send commands at a steady rate until told to stop; tells when it has begun, and how many a second it were."""
    log = open_log(settings, SystemClock())
    publisher, codec = log.publisher(COMMANDS, schema=SCHEMA.command_json), CommandCodec(SCHEMA)
    start, done = time.monotonic(), 0
    while not stop.is_set():
        time.sleep(SEND_SECONDS)
        due = int((time.monotonic() - start) * SENT_PER_SECOND)
        entries: dict[int, list[Entry]] = {}
        now_ms = time.time_ns() // 1_000_000
        for n in range(done, due):
            id = f"sent-{n % AGGREGATES}"
            envelope = CommandEnvelope(id, uuid7(now_ms, n), now_ms * 1000)
            entries.setdefault(partition_of(id, PARTITIONS), []).append(Entry(id, codec.encode(envelope, Put(1, NOTE))))
        for partition, batch in entries.items():
            publisher.publish(partition, batch, timeout_seconds=60)
        if entries and not done:
            sent.put(0.0)
        done = due
    sent.put(done / (time.monotonic() - start))
    log.close()


@contextmanager
def sending(settings: Settings) -> Generator[Callable[[], float]]:
    """Another process sends thousands of commands a second; what is given stops it, and says how many it were."""
    context = multiprocessing.get_context("spawn")
    stop, sent = context.Event(), context.Queue()
    sender = context.Process(target=send, args=(settings, stop, sent), daemon=True)
    sender.start()
    try:
        sent.get(timeout=ASK_SECONDS)

        def stopped() -> float:
            stop.set()
            rate: float = sent.get(timeout=60)
            return rate

        yield stopped
    finally:
        stop.set()
        sender.join(60)


def busy(settings: Settings, asks: int) -> Waited:
    """The same beside that."""
    with sending(settings) as stopped:
        return waited(settings, asks)._replace(sent_per_second=stopped())


async def many(settings: Settings, asks: int, in_flight: int) -> float:
    """Seconds for so many asks, so many at once."""
    numbers = iter(range(asks))

    async with Client(boxes, settings=settings) as client:

        async def ask_on() -> None:
            for n in numbers:
                await client.ask(Box, f"box-{n % AGGREGATES}", Put(1, ""), timeout_seconds=ASK_SECONDS)

        start = time.perf_counter()
        await asyncio.gather(*(ask_on() for _ in range(in_flight)))
        return time.perf_counter() - start


def run(broker: Settings, *, few: int = 300, asks: int = 20_000, in_flight: int = 2000) -> Answered:
    """Measure all three."""
    with fresh(broker) as settings, working(settings):
        at_rest = waited(settings, few)
        seconds = asyncio.run(many(settings, asks, in_flight))
        beside_others = busy(settings, few)  # at the end: a worker that falls behind has a backlog then
    return Answered(at_rest, beside_others, asks / seconds, in_flight)
