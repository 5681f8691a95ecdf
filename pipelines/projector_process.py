"""A projector as a process: what it waits for, how it is asked, and how it ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

import structlog
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.engine_reader import QueryLimits
from magnetar.projections.http_front import HttpFront
from magnetar.projections.statement import is_answer
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import DataFolderError, SettingsError, StoreUnavailable, TopicKind

from .clock import Clock, SystemClock
from .control import take_wish_of
from .health import Health, answering
from .log import Log, SharesOut
from .pipeline import Pipeline
from .process_metrics import watch_disk
from .projector import IDLE_SECONDS, Projector
from .projector_group import Group, group_of
from .runtime import closed_if_it_fails, collect_rarely, provision_all, take_heed, together, wait_for_log
from .server_preflight import examine_store
from .settings import Settings, open_log
from .sharing import Sharing

SERVER_LOOK_SECONDS: Final = 1.0
"""How often it is looked on a server for what was wished there, and, at the start, whether it answers."""

OUTWAIT_SECONDS: Final = 30.0
"""How long a projector that starts waits for another process that has the engine open."""


def _open_store(
    pipeline: Pipeline, settings: Settings, clock: Clock, stopped: Callable[[], bool], outwait_seconds: float
) -> Store:
    """Another process that has the engine open is waited for, and so is a server that does not answer.

    Raises LogUnsafe for a server that would lose rows.
    """
    server = settings.server()
    seconds = outwait_seconds if server is None else settings.broker_wait_seconds
    deadline, has_said = clock.monotonic() + seconds, False
    while True:
        try:
            return Store(embedded_dsn(settings.data)) if server is None else _opened_safe(pipeline, server, clock)
        except (DataFolderError, StoreUnavailable) as error:
            # To wait mends neither a folder that is no engine's nor what ClickHouse itself has refused.
            is_passing = "pid" in error.fields if server is None else not is_answer(error.what)
            if not is_passing or clock.monotonic() >= deadline or stopped():
                raise
            if not has_said:
                structlog.get_logger("magnetar.projector").warning("waiting", what=error.what)
                has_said = True
            clock.sleep(IDLE_SECONDS if server is None else SERVER_LOOK_SECONDS)


def _opened_safe(pipeline: Pipeline, server: Endpoint, clock: Clock) -> Store:
    store = Store(server)
    try:
        take_heed(pipeline, examine_store(pipeline, store, server, clock))
    except BaseException:
        store.close()
        raise
    return store


def run_projector(
    pipeline: Pipeline,
    settings: Settings,
    *,
    stopped: Callable[[], bool],
    first: Callable[[Projector], None] | None = None,
    failpoint: Callable[[str], None] | None = None,
    outwait_seconds: float = OUTWAIT_SECONDS,
    group: Group | None = None,
) -> None:
    """Mirror the pipeline in one process, and answer queries and take wishes on loopback, until `stopped`.

    On the embedded log, with what it reads: an engine is open in one process alone.

    `first` is called before any table is made. Another process that has the engine open is waited for so long: it may
    be a query, or a rebuild that is nearly done. Raises DataFolderError if it takes longer, and SettingsError for a
    group where there is no server. Tests crash or freeze the process with `failpoint`.
    """
    if group is not None and settings.server() is None:
        raise SettingsError(
            "The embedded ClickHouse is open in one projector alone, which feeds all tables.",
            cure="Leave --table and --without-table out, or name a server in MAGNETAR_CLICKHOUSE.",
        )
    collect_rarely()
    clock = SystemClock()
    health = Health(clock)
    stopped = health.beating(stopped)
    watch_disk(pipeline.name, settings.data)
    pipelines = together(pipeline, settings)

    def start() -> Log:
        with closed_if_it_fails(open_log(settings, clock)) as log:
            provision_all(pipelines, log, kinds=[TopicKind.EVENTS])  # its role may see nothing else
            return log

    with ExitStack() as left:
        left.enter_context(answering(health, settings))
        log = wait_for_log(start, settings, clock, stopped)
        left.callback(log.close)
        store = _open_store(pipeline, settings, clock, stopped, outwait_seconds)
        left.callback(store.close)
        fed = group or group_of(pipeline)

        def projector_of(each: Pipeline) -> Projector:
            sharing = None
            if not store.is_embedded and isinstance(log, SharesOut):
                sharing = Sharing(
                    each, log, f"projector-{secrets.token_hex(8)}", fed if each is pipeline else group_of(each)
                )
                left.callback(sharing.close)
            projector = Projector(
                each, log, store, settings, clock=clock, failpoint=failpoint, sharing=sharing, beat=health.beat
            )
            left.callback(projector.close)
            return projector

        projectors = [projector_of(each) for each in pipelines]
        running = list(zip(projectors, pipelines, strict=True))
        front = left.enter_context(_answering_questions(running, store, settings))
        if first is not None:
            first(projectors[-1])
        for projector in projectors:  # what is read comes first: views may be over its views
            projector.prepare()
        front()
        for projector in projectors:
            projector.open()
        health.is_ready = True
        look_at = clock.monotonic()
        while not stopped():
            if not store.is_embedded and clock.monotonic() >= look_at:
                for projector in projectors:
                    projector.look_for_wishes()
                look_at = clock.monotonic() + SERVER_LOOK_SECONDS
            if not sum(projector.step() for projector in projectors):
                clock.sleep(IDLE_SECONDS)


@contextmanager
def _answering_questions(
    running: Sequence[tuple[Projector, Pipeline]], store: Store, settings: Settings
) -> Generator[Callable[[], None]]:
    """The embedded engine's way to other processes, which begins with a call. A server has its own."""
    if not store.is_embedded:
        yield lambda: None
        return
    limits = QueryLimits(seconds_max=settings.query_seconds_max, memory_bytes_max=settings.query_memory_bytes_max)
    control = partial(take_wish_of, running)
    front = HttpFront(store.reader(limits), settings.data, port=settings.query_port, control=control)

    def start() -> None:
        structlog.get_logger("magnetar.projector").info("queries are answered", url=front.start())

    try:
        yield start
    finally:
        front.close()
