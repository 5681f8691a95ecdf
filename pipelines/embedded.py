"""A whole pipeline in this process and a temporary folder, for tests: what `Pipeline.embedded` gives."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from magnetar.schemas import DeclarationError, LogUnavailable, SettingsError, StoreUnavailable

from .client import SyncClient
from .clock import SystemClock
from .deciding import decide_until, workers_of
from .event_source import along
from .logs.sqlite import SqliteLog
from .pipeline import Pipeline
from .runtime import provision_all, worker_name
from .settings import Settings

SETTLE_SECONDS_MAX: Final = 30.0
IDLE_SECONDS: Final = 0.01
"""A query waits for two rounds of an idle worker, so they are short."""


class Embedded:
    """A running pipeline. `client` sends and asks; `query` asks ClickHouse, and sees all that was sent before."""

    client: SyncClient
    settings: Settings
    """For further clients: `Client(accounts, settings=running.settings)`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._together = along(pipeline)
        self._clock = SystemClock()
        self._closing = contextlib.ExitStack()
        self._deciding: _Deciding | None = None
        self._tables: _Tables | None = None
        self._lock = threading.Lock()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a SELECT over the pipeline's views, as dictionaries by column.

        1. Waits until what was sent before is decided. 2. Brings it into ClickHouse, which the first call opens.
        3. Asks. Raises QueryRefused with ClickHouse's own words, and DeclarationError for a projection that is wrong.
        """
        __tracebackhide__ = True
        return self.rows(sql, {}, {})

    def rows(self, sql: str, parameters: Mapping[str, object], formats: Mapping[str, str]) -> list[dict[str, Any]]:
        """The same, with parameters, and with `clickhouse-connect`'s formats of columns."""
        __tracebackhide__ = True  # by pytest
        if self._deciding is None:
            raise SettingsError(
                "The embedded pipeline does not run.", cure=f"with {self._pipeline.name}.embedded() as it"
            )
        with self._lock:
            self._deciding.wait_until_at_rest(SETTLE_SECONDS_MAX)
            if self._tables is None:
                self._tables = self._opened()
            return self._tables.query(sql, parameters, formats)

    def _opened(self) -> _Tables:
        __tracebackhide__ = True
        try:
            return self._closing.enter_context(_Tables(self._together, self._log, self.settings))
        except DeclarationError as error:  # the test's own line and what is wrong say it all
            raise error.with_traceback(None) from None

    def __enter__(self) -> Self:
        if running := [each.name for each in self._together if each.running is not None]:
            raise SettingsError(
                f"The pipeline {running[0]!r} runs embedded already.",
                cure="Use that one: a fixture of a wider scope gives it to all tests.",
            )
        with contextlib.ExitStack() as closing:
            folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="magnetar-", ignore_cleanup_errors=True))
            self.settings = Settings(data=Path(folder) / "data", broker="embedded", quarantine_keys_max=0)
            self._log = SqliteLog(self.settings.data, self._clock)
            closing.callback(self._log.close)
            provision_all(self._together, self._log)
            self._deciding = closing.enter_context(_Deciding(self._together, self._log))
            self.client = closing.enter_context(SyncClient(self._pipeline, settings=self.settings))
            for each in self._together:
                each.running = self
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._together:
            each.running = None
        with self._lock:
            self._deciding = self._tables = None
            self._closing.close()


class _Deciding:
    """The workers, on a thread of their own."""

    def __init__(self, pipelines: Sequence[Pipeline], log: SqliteLog) -> None:
        self._clock = SystemClock()
        self._workers = [
            worker
            for pipeline in pipelines
            for worker in workers_of(pipeline, log, name=worker_name(), clock=self._clock)
        ]
        self._stop = threading.Event()
        self._rests = 0
        self._rested = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="magnetar-worker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        for worker in self._workers:
            worker.close()

    def wait_until_at_rest(self, timeout_seconds: float) -> None:
        """Return when all that stands on the command topics now is decided. Raises what ended or held up a worker."""
        with self._rested:
            wanted = self._rests + 2  # the round that is under way may have looked before the last command came
            arrived = self._rested.wait_for(lambda: self._rests >= wanted or self._error is not None, timeout_seconds)
        if self._error is not None:
            raise self._error
        for worker in self._workers:
            for error in worker.refused.values():
                raise error
        if not arrived:
            raise LogUnavailable(
                f"The worker had not decided all commands within {timeout_seconds:g} s.",
                cure="Does an `execute` or `apply` take that long, or wait for something?",
            )

    def _run(self) -> None:
        try:
            decide_until(self._stop.is_set, self._workers, self._clock, idle_seconds=IDLE_SECONDS, at_rest=self._rest)
        except BaseException as error:  # noqa: BLE001 - it is raised where a test waits
            with self._rested:
                self._error = error
                self._rested.notify_all()

    def _rest(self) -> None:
        if any(worker.keeps_off for worker in self._workers):
            return  # what stands on that partition is not decided yet
        with self._rested:
            self._rests += 1
            self._rested.notify_all()


class _Tables:
    """ClickHouse, brought up to date when it is asked. One per process: ClickHouse cannot open two folders in one."""

    def __init__(self, pipelines: Sequence[Pipeline], log: SqliteLog, settings: Settings) -> None:
        """Of those, the ones come first that others read."""
        from magnetar.projections.store import Store, embedded_dsn

        from .projector import Projector

        self._store = Store(embedded_dsn(settings.data))
        self._projectors = [Projector(each, log, self._store, settings, clock=SystemClock()) for each in pipelines]

    def __enter__(self) -> Self:
        try:
            for projector in self._projectors:
                projector.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for projector in self._projectors:
            projector.close()
        self._store.close()

    def query(self, sql: str, parameters: Mapping[str, object], formats: Mapping[str, str]) -> list[dict[str, Any]]:
        for projector in self._projectors:
            projector.open_used()
            while projector.step():
                pass
            if projector.lost:
                raise StoreUnavailable(
                    f"ClickHouse did not take in all partitions: {projector.lost}.",
                    cure="What is said there has to be mended; the log has everything.",
                )
        return self._store.rows(sql, parameters, formats)
