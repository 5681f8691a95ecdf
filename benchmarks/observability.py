"""What it costs a worker to be observed: chunk after chunk, observed and unobserved in turn, by its thread's time.

Whatever else runs on the machine makes both dearer alike, which it does not do with two runs one after the other.
"""

import random
import time
from collections.abc import Iterator
from functools import partial
from statistics import quantiles
from typing import Any, Final, NamedTuple

from magnetar.aggregates import Decision
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Log, Message
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.pipelines.tracing import Times, Tracing
from magnetar.pipelines.worker import Worker, WorkerOptions
from magnetar.pipelines.worker_metrics import WorkerMetrics
from magnetar.schemas import MessageId, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from .broker import fresh
from .domain import Box, Put
from .worker import NOTE, PARTITIONS, SCHEMA, boxes, fill

CHUNK: Final = 250
"""Smaller than the worker's own: more chunks to compare, and more of what is paid once for each."""

SCRAPES: Final = 50


class Cost(NamedTuple):
    """Time of one command in microseconds, the quickest tenth of the chunks, unobserved and observed."""

    name: str
    unobserved_us: float
    observed_us: float
    chunks: int

    @property
    def share(self) -> float:
        """What being observed adds."""
        return self.observed_us / self.unobserved_us - 1


class Silent:
    """Takes in what a worker counts, and says nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


def traceparent(n: int, one_in: int) -> dict[str, str]:
    """The context of the n-th command, recorded for one in so many."""
    return {"traceparent": f"00-{n + 1:032x}-{n + 1:016x}-{'01' if n % one_in == 0 else '00'}"}


def traced() -> Tracing:
    """Spans are made and kept, and sent nowhere."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    return Tracing(provider.get_tracer("magnetar"))


def decide(log: Log, commands: int, tracing: Tracing | None) -> dict[bool, list[float]]:
    """Decide the backlog; the time of a command in each chunk, in microseconds, by whether it was observed."""
    worker: Any = Worker(
        log, Box, SCHEMA, partitions=PARTITIONS, name="bench", clock=SystemClock(), random=random.SystemRandom(),
        options=WorkerOptions(chunk_messages_max=CHUNK),
    )  # fmt: skip
    ways = {
        True: {**vars(worker), "_tracing": tracing},
        False: {**vars(worker), "_metrics": Silent(), "_tracing": None},
    }
    took: dict[bool, list[float]] = {True: [], False: []}
    turns = random.Random(1)
    while worker.decided < commands:
        observed = turns.random() < 0.5
        worker.__dict__.update({name: ways[observed][name] for name in ("_metrics", "_tracing")})
        owned, decided, began = len(worker.owned), worker.decided, time.thread_time()
        worker.step(timeout_seconds=1)
        seconds, decided = time.thread_time() - began, worker.decided - decided
        if decided == CHUNK and owned == len(worker.owned):  # no partition was taken in it
            took[observed].append(seconds / decided * 1e6)
    worker.close()
    return took


def run(broker: Settings, commands: int) -> Iterator[Cost]:
    """Measure figures alone, and with traces of which one in a thousand, and one in a hundred, is recorded."""
    for name, one_in in (("metrics", 0), ("metrics, 1 in 1000 traced", 1000), ("metrics, 1 in 100 traced", 100)):
        with fresh(broker) as settings:
            log = open_log(settings, SystemClock())
            provision(boxes, log)
            fill(log, commands, partial(traceparent, one_in=one_in) if one_in else None)
            took = decide(log, commands, traced() if one_in else None)
            log.close()
        yield Cost(name, quick(took[False]), quick(took[True]), len(took[True]))


def quick(took: list[float]) -> float:
    """The first decile: what else runs on the machine makes chunks dearer, and none cheaper."""
    return quantiles(took, n=10)[0]


def figures_us() -> float:
    """The time in which a worker's figures take in one command of a chunk of a thousand, the least of many."""
    metrics = WorkerMetrics("bench", "Figures", SystemClock())
    decisions = [Decision(b"", "a", number, "", None, "accepted", events=1) for number in range(1000)]

    def once() -> float:
        began = time.thread_time()
        metrics.took_in_hand(0, 0)
        metrics.decided(decisions, 0.01, 0.01)
        metrics.reached(0, 1)
        return time.thread_time() - began

    return min(once() for _ in range(SCRAPES)) / len(decisions) * 1e6


def traces_us(one_in: int) -> float:
    """The same for the spans of commands of which one in so many is recorded."""
    codec, tracing = CommandCodec(SCHEMA), traced()
    decisions = [Decision(b"", "a", number, "", None, "accepted", events=1) for number in range(1000)]
    envelopes = (CommandEnvelope("a", uuid7(1, n), 1, metadata=traceparent(n, one_in)) for n in range(len(decisions)))
    payloads = (codec.encode(envelope, Put(1, NOTE)) for envelope in envelopes)
    messages = [Message(MessageId(n), "a", payload, 1, 1) for n, payload in enumerate(payloads)]
    where: dict[str, str | int] = {"magnetar.context": "boxes", "magnetar.aggregate": "Box", "magnetar.partition": 0}

    def once() -> float:
        began = time.thread_time()
        tracing.decided(where, messages, decisions, Times(1, 2, 3))
        return time.thread_time() - began

    return min(once() for _ in range(SCRAPES)) / len(decisions) * 1e6


def scrape_ms() -> float:
    """Processor time of one scrape, in milliseconds."""
    began = time.thread_time()
    for _ in range(SCRAPES):
        generate_latest()
    return (time.thread_time() - began) / SCRAPES * 1e3
