"""What it costs a worker to be observed: the same backlog with figures and without, in turn, by processor time."""

import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from magnetar.pipelines import worker as worker_module
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Log
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.pipelines.worker import Worker
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from .broker import fresh
from .domain import Box
from .measured import Took
from .worker import PARTITIONS, SCHEMA, boxes, fill

ROUNDS: Final = 7
"""The least of them counts: whatever else runs on the machine adds to processor time too, and takes nothing away."""

SCRAPE_SECONDS: Final = 1.0
"""Thirty times as often as the chart's ServiceMonitor says."""

SAMPLED: Final = 0.01
"""The share of commands whose trace is recorded; all of them carry a context."""


class Cost(NamedTuple):
    """Processor time of one command in microseconds, the least of the rounds, and what it is over that of silence."""

    name: str
    cpu_us: float
    share: float


class Silent:
    """Takes in what a worker counts, and says nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


@contextmanager
def silent() -> Generator[None]:
    """Workers that are made within count nothing."""
    ours: Any = worker_module
    counting, ours.WorkerMetrics = ours.WorkerMetrics, Silent
    try:
        yield
    finally:
        ours.WorkerMetrics = counting


@contextmanager
def scraped() -> Generator[None]:
    """Somebody reads the figures all the time."""
    stopped = threading.Event()

    def scrape() -> None:
        while not stopped.wait(SCRAPE_SECONDS):
            generate_latest()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextmanager
def traced() -> Generator[None]:
    """The same, and OpenTelemetry is set up."""
    provider, api = TracerProvider(), cast("Any", trace)
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    before, api._TRACER_PROVIDER = api._TRACER_PROVIDER, provider  # noqa: SLF001 - the public way works once a process
    try:
        with scraped():
            yield
    finally:
        provider.shutdown()
        api._TRACER_PROVIDER = before  # noqa: SLF001


def traceparent(n: int) -> dict[str, str]:
    """The context of the n-th command, recorded for one in a hundred."""
    return {"traceparent": f"00-{n + 1:032x}-{n + 1:016x}-{'01' if n % round(1 / SAMPLED) == 0 else '00'}"}


def decide(log: Log, commands: int) -> float:
    """Run the worker until the backlog is decided; processor time of one command, in microseconds."""
    worker = Worker(
        log, Box, SCHEMA, partitions=PARTITIONS, name="bench", clock=SystemClock(), random=random.SystemRandom()
    )
    start = Took.now()
    while worker.decided < commands:
        worker.step(timeout_seconds=1)
    took = Took.since(start)
    worker.close()
    return took.cpu_seconds / commands * 1e6


WAYS: Final[dict[str, tuple[Callable[[], Any], bool]]] = {
    "nothing": (silent, False),
    "metrics, scraped every second": (scraped, False),
    "nothing, commands with a context": (silent, True),
    "metrics and traces, 1 % of them recorded": (traced, True),
}
"""How a worker is observed, and whether its commands carry a context."""


def run(broker: Settings, commands: int) -> Iterator[Cost]:
    """Measure each way in turn, round by round, each on a copy of the same log."""
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    with fresh(broker) as bare, fresh(broker) as carrying:
        for settings, metadata_of in ((bare, None), (carrying, traceparent)):
            _fill(settings, commands, metadata_of)
        for _ in range(ROUNDS):
            for name, (observed, carries) in WAYS.items():
                with observed():
                    took[name].append(_decide_copy(carrying if carries else bare, commands))
    least = {name: min(found) for name, found in took.items()}
    for name, (_, carries) in WAYS.items():
        base = least["nothing, commands with a context" if carries else "nothing"]
        yield Cost(name, least[name], least[name] / base - 1)


def _fill(settings: Settings, commands: int, metadata_of: Callable[[int], dict[str, str]] | None) -> None:
    log = open_log(settings, SystemClock())
    provision(boxes, log)
    fill(log, commands, metadata_of)
    log.close()


def _decide_copy(settings: Settings, commands: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        data = shutil.copytree(settings.data, f"{folder}/data")
        log = open_log(settings.model_copy(update={"data": Path(data)}), SystemClock())
        try:
            return decide(log, commands)
        finally:
            log.close()
