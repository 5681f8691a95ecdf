"""What runs in the processes of a pipeline: deciding and projecting, until told to stop."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TypeVar

import structlog
from magnetar.schemas import TopicKind

from .clock import Clock, SystemClock
from .deciding import decide_until, workers_of
from .event_source import along
from .health import Health, answering
from .log import Log
from .patience import patiently
from .pipeline import Pipeline
from .preflight import Finding, Severity, examine, refuse_dangers
from .process_metrics import examined, watch_disk
from .provisioning import wanted_topics
from .settings import EMBEDDED, Settings, open_log
from .worker import Worker

T = TypeVar("T")


def provision(pipeline: Pipeline, log: Log, *, kinds: Collection[TopicKind] = tuple(TopicKind)) -> None:
    """Create what is missing of the pipeline's topics of these kinds. Repeatable."""
    for wanted in wanted_topics(pipeline):
        if wanted.topic.kind in kinds:
            log.provision(wanted.topic, partitions=wanted.partitions, schema=wanted.schema)


def provision_all(pipelines: Iterable[Pipeline], log: Log, *, kinds: Collection[TopicKind] = tuple(TopicKind)) -> None:
    """The same for what runs together."""
    for pipeline in pipelines:
        provision(pipeline, log, kinds=kinds)


def together(pipeline: Pipeline, settings: Settings) -> list[Pipeline]:
    """What runs in the processes of a pipeline, itself last: on the embedded log, which is one data folder with one
    engine, all that it reads runs along. On Pulsar, each context has processes of its own."""
    return along(pipeline) if settings.broker == EMBEDDED else [pipeline]


def preflight(pipeline: Pipeline, log: Log) -> None:
    """Say what is not as it should be; raise LogUnsafe if that would lose the log, or stop the pipeline."""
    findings = examine(pipeline, log)
    examined(pipeline.name, findings)
    take_heed(pipeline, findings)


def take_heed(pipeline: Pipeline, findings: Sequence[Finding]) -> None:
    """Log warnings and notes, such as what could not be checked; raise LogUnsafe if something is dangerous."""
    logger = structlog.get_logger("magnetar.preflight").bind(context=pipeline.name)
    for finding in findings:
        log = {Severity.WARNING: logger.warning, Severity.NOTE: logger.info}.get(finding.severity)
        if log is not None:
            log("preflight", what=str(finding), mend=finding.mend)
    refuse_dangers(findings, of=f"The pipeline {pipeline.name}")


def collect_rarely() -> None:
    """Let Python's cycle collector pass less often than its default of every 700 new objects.

    A process of ours makes a batch of messages at a time, none of them in a cycle: looking through them again and again
    took 40 % of the time of reading the log (benchmarks/mirror.py).
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


def run_worker(
    pipeline: Pipeline,
    settings: Settings,
    *,
    stopped: Callable[[], bool],
    aggregates: Sequence[str] = (),
    name: str | None = None,
    failpoint: Callable[[str], None] | None = None,
) -> None:
    """Decide the commands of these aggregates, or of all of the pipeline, in one process, until `stopped`.

    On the embedded log, all includes those of what the pipeline reads.
    Tests crash or freeze the process with `failpoint`.
    """
    collect_rarely()
    clock: Clock = SystemClock()
    health = Health(clock)
    stopped = health.beating(stopped)
    watch_disk(pipeline.name, settings.data)
    pipelines = [pipeline] if aggregates else together(pipeline, settings)

    def start() -> tuple[Log, list[Worker]]:
        with closed_if_it_fails(open_log(settings, clock)) as log:
            provision_all(pipelines, log)
            preflight(pipeline, log)
            return log, [
                worker
                for each in pipelines
                for worker in workers_of(
                    each,
                    log,
                    name=name or worker_name(),
                    clock=clock,
                    aggregates=aggregates,
                    failpoint=failpoint,
                    beat=health.beat,
                )
            ]

    with answering(health, settings):
        log, workers = wait_for_log(start, settings, clock, stopped)
        health.is_ready = True
        try:
            decide_until(stopped, workers, clock)
        finally:
            for worker in workers:
                worker.close()
            log.close()


def wait_for_log(start: Callable[[], T], settings: Settings, clock: Clock, stopped: Callable[[], bool]) -> T:
    """Start something that needs the log, as soon as it is there: `Settings.broker_wait_seconds` says how long at most.

    Raises LogUnavailable after that.
    """
    seconds_max = 0.0 if settings.broker == EMBEDDED else settings.broker_wait_seconds
    return patiently(start, seconds_max=seconds_max, stopped=stopped, clock=clock, random=random.SystemRandom())


@contextmanager
def closed_if_it_fails(log: Log) -> Generator[Log]:
    """Close the log if what is done with it fails."""
    try:
        yield log
    except BaseException:
        log.close()
        raise


def worker_name() -> str:
    """A name that no other live process has."""
    return f"{socket.gethostname()}-{os.getpid()}-{random.SystemRandom().randbytes(3).hex()}"


class StopSignal:
    """Becomes true on Ctrl-C and SIGTERM, and, in a supervised process, when its supervisor is gone."""

    def __init__(self, *, supervised: bool = False) -> None:
        self._event = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._event.set())
        if supervised:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            threading.Thread(target=self._watch_supervisor, name="magnetar-supervisor", daemon=True).start()
        else:
            signal.signal(signal.SIGINT, lambda *_: self._event.set())

    def __call__(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until it becomes true, or the time is over; returns whether it is."""
        return self._event.wait(timeout_seconds)

    def _watch_supervisor(self) -> None:
        """The supervisor holds the other end of standard input: it ends when the supervisor does, however."""
        while os.read(0, 1024):  # not through sys.stdin, whose lock would be held when the process ends
            pass
        self._event.set()
        structlog.get_logger("magnetar.run").debug("told to stop: the supervisor has let go")
