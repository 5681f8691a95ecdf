"""The common ground of both clients: commands go out, replies come in, and no call here waits for either."""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from random import Random
from typing import Any, Final

from magnetar.projections.supervised import is_supervised
from magnetar.schemas import (
    Command,
    DataFolderError,
    LogUnavailable,
    MagnetarError,
    MessageRefused,
    SettingsError,
    TopicKind,
    partition_of,
    wire_name,
)
from magnetar.schemas.command_message import CommandEnvelope

from .clock import Clock, SystemClock
from .log import Backlog, Entry, KnowsBacklog, Log, LosesReplies
from .outbox import Outbox, Parcel
from .outgoing import NO_DETAILS, Details, Outgoing, Route, envelope_of
from .pipeline import Pipeline
from .provisioning import check_partitions
from .receipt import Receipt
from .repeating import Repeats
from .replies import Ask, Replies
from .settings import EMBEDDED, Settings, load_settings, open_log
from .tracing import F, tracing

ASKS_MAX: Final = 10_000
"""Asks under way at once; more of them wait for their turn. Replies to more than 20,000 could be lost: that is what an
inbox on Pulsar holds."""

WRITING_SHARE: Final = 0.5
"""Of a call's time, what the log may take to store the command. Past it, the log's own error arrives in time: that a
partition is locked, and by which process."""

COMING_SECONDS: Final = 30.0
"""How long a pipeline's topics are waited for while a `magnetar dev` lives, which makes them when it starts, where the
call has no time of its own: in a second or two, on a machine that has time."""

CALLED_SECONDS: Final = 1.5
"""How long they are waited for where none lives: a `magnetar dev` that was called just before has not said yet that it
does."""

_LOOK_SECONDS: Final = 0.05
_BACKLOG_SECONDS: Final = 1.0
"""How old an answer to who decides may be: thousands of asks can run out of time at once."""

_REPEAT_SECONDS: Final = 15.0
"""How long the log may take to store a command that is sent once more."""

_CHUNK_MAX: Final = 5000


def connect(pipeline: Pipeline, settings: Settings | None = None, clock: Clock | None = None) -> Connection:
    """Open the log that the settings name, for one pipeline. Makes nothing: a data folder has to be there.

    Raises DataFolderError, LogUnavailable or AccessDenied, and SettingsError for a pipeline that the log does not fit.
    """
    settings, clock = settings or settings_of(pipeline), clock or SystemClock()
    log = _opened_log(settings, clock)
    if settings.broker == EMBEDDED:  # on Pulsar, a client's role need not have the right to look
        check_partitions(pipeline, log)
    is_coming = partial(is_supervised, settings.data) if settings.broker == EMBEDDED else None
    return Connection(pipeline, log, clock=clock, is_coming=is_coming)


def _opened_log(settings: Settings, clock: Clock) -> Log:
    """The log; a `magnetar dev` that was called just before may be making its folder."""
    if settings.broker != EMBEDDED:
        return open_log(settings, clock)
    from .logs.sqlite_files import is_data_folder

    deadline = clock.monotonic() + CALLED_SECONDS
    while True:
        try:
            return open_log(settings, clock, make=False)
        except DataFolderError:
            if is_data_folder(settings.data) or clock.monotonic() > deadline:
                raise
        clock.sleep(_LOOK_SECONDS)


def settings_of(pipeline: Pipeline) -> Settings:
    """Where clients of a pipeline go that are given no settings: to what runs embedded here, or else the environment's.

    Raises SettingsError for a setting that is wrong.
    """
    return load_settings() if pipeline.running is None else pipeline.running.settings


def _check_timeout(timeout_seconds: float) -> None:
    if not 0 <= timeout_seconds <= threading.TIMEOUT_MAX:
        raise MessageRefused(
            f"The command was not sent: nobody can wait for {timeout_seconds:g} s.", cure="Wait for 0 seconds or more."
        )


class Connection:
    """One client's way to the log. Safe to share between threads and event loops, not between processes."""

    def __init__(
        self, pipeline: Pipeline, log: Log, *, clock: Clock, is_coming: Callable[[], bool] | None = None
    ) -> None:
        """`is_coming` says whether somebody lives who may just be making the pipeline's topics."""
        self._is_coming = is_coming
        self._backlogs: dict[str, tuple[float, Sequence[Backlog]]] = {}
        self._pipeline = pipeline
        self._log = log
        self._clock = clock
        self._pid = os.getpid()
        self._closed = False
        self._random = Random(secrets.randbits(256))  # noqa: S311 - ids have to be different, not secret
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._routes: dict[str, Route] = {}
        self._preparing: dict[tuple[type[Any], bool], Future[None]] = {}
        self._outbox = Outbox(clock)
        self._replies = Replies(log)
        self._repeats: Repeats | None = None
        self._tracing = tracing()
        self._turns: deque[tuple[Ask, int, Parcel]] = deque()
        self._under_way = 0

    def preparing(self, aggregate: type[Any], *, asking: bool) -> Future[None] | None:
        """What the first command to an aggregate has to wait for, done on a thread: its topics are found, the inbox is
        opened. None if `send` or `ask` would return at once. All who come meanwhile get the same future."""
        self._check_usable()
        if wire_name(aggregate) in self._routes and (not asking or self._replies.is_open):
            return None
        with self._lock:
            key = (aggregate, asking)
            future = self._preparing.get(key)
            if future is None:
                future = self._preparing[key] = Future()
                future.set_running_or_notify_cancel()  # who waits no longer does not end it for the others
                threading.Thread(target=self._prepare, args=(key, future), name="magnetar-prepare", daemon=True).start()
        return future

    def _prepare(self, key: tuple[type[Any], bool], future: Future[None]) -> None:
        aggregate, asking = key
        try:
            self._route(aggregate)
            if asking:
                self._replies.address()
        except Exception as error:  # noqa: BLE001 - theirs who wait
            future.set_exception(error)
        else:
            future.set_result(None)
        finally:
            with self._lock:
                del self._preparing[key]

    def send(
        self, aggregate: type[Any], id: str, command: Command, details: Details, timeout_seconds: float
    ) -> tuple[str, Future[None]]:
        """Put a command on its way; returns its id, and a future that ends when it is durable, or with the error."""
        return self._followed("send", self._send, aggregate, id, command, details, timeout_seconds)

    def _send(
        self, aggregate: type[Any], id: str, command: Command, details: Details, timeout_seconds: float
    ) -> tuple[str, Future[None]]:
        self._check_usable()
        _check_timeout(timeout_seconds)
        route = self._route(aggregate, timeout_seconds)
        envelope = self._envelope(id, details)
        stored: Future[None] = Future()
        deadline = self._clock.monotonic() + WRITING_SHARE * timeout_seconds
        parcel = Parcel(route.entry(envelope, command), envelope.command_id, deadline, stored)
        self._outbox.put(route.publisher, route.partition_of(id), parcel)
        return envelope.command_id, stored

    def ask(
        self, aggregate: type[Any], id: str, command: Command, details: Details, timeout_seconds: float
    ) -> tuple[str, Future[Receipt[Any]]]:
        """Put a command on its way whose reply comes back here; returns its id, and its receipt or the error.

        Whoever waits no longer cancels the future: what was not written yet is not written then.
        """
        return self._followed("ask", self._ask, aggregate, id, command, details, timeout_seconds)

    def _ask(
        self, aggregate: type[Any], id: str, command: Command, details: Details, timeout_seconds: float
    ) -> tuple[str, Future[Receipt[Any]]]:
        self._check_usable()
        _check_timeout(timeout_seconds)
        route = self._route(aggregate, timeout_seconds)
        envelope = self._envelope(id, details, reply_to=self._replies.address())
        deadline = self._clock.monotonic() + WRITING_SHARE * timeout_seconds
        entry = route.entry(envelope, command)
        parcel = Parcel(entry, envelope.command_id, deadline, Future())
        ask = Ask(route, id, envelope.command_id, entry)
        self._replies.expect(ask)
        self._watch()
        parcel.stored.add_done_callback(partial(self._was_written, ask))
        ask.receipt.add_done_callback(partial(self._is_over, ask, parcel))
        self._take_turn(ask, route.partition_of(id), parcel)
        return envelope.command_id, ask.receipt

    def _followed(
        self,
        doing: str,
        go: Callable[[type[Any], str, Command, Details, float], tuple[str, F]],
        aggregate: type[Any],
        id: str,
        command: Command,
        details: Details,
        timeout_seconds: float,
    ) -> tuple[str, F]:
        """Do it, within a span if this process is traced."""
        if self._tracing is None:
            return go(aggregate, id, command, details, timeout_seconds)
        return self._tracing.follow(
            doing,
            self._pipeline.name,
            aggregate,
            command,
            details,
            lambda traced: go(aggregate, id, command, traced, timeout_seconds),
        )

    def publish_many(self, commands: Iterable[Outgoing], timeout_seconds: float) -> Iterator[int]:
        """Put many commands on their topics, in order per aggregate; yields how many are durable, by the chunk."""
        chunks: dict[tuple[Route, int], list[Entry]] = {}
        size = 0
        for aggregate, id, command, command_id in commands:
            self._check_usable()
            route = self._route(aggregate)
            details = NO_DETAILS if command_id is None else Details(command_id)
            entry = route.entry(self._envelope(id, details), command)
            chunks.setdefault((route, route.partition_of(id)), []).append(entry)
            size += 1
            if size == _CHUNK_MAX:
                yield _flush(chunks, timeout_seconds)
                chunks, size = {}, 0
        if size:
            yield _flush(chunks, timeout_seconds)

    def close(self) -> None:
        """End the asks under way with OutcomeUnknown, finish what is being written, and close the log. Repeatable.

        In a process that was forked off, it does nothing: the files are its parent's.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._turns.clear()
        if self._repeats is not None:
            self._repeats.close()
        self._replies.close()
        self._outbox.close()
        for route in self._routes.values():
            route.publisher.close()
        self._log.close()

    def _envelope(self, id: str, details: Details, reply_to: str | None = None) -> CommandEnvelope:
        now_ms, randomness = self._clock.now_ms(), self._random.getrandbits(74)
        return envelope_of(id, details, now_ms=now_ms, randomness=randomness, reply_to=reply_to)

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise SettingsError(
                f"The client was opened by process {self._pid} and cannot be used in process {os.getpid()}, which was "
                "forked from it: neither its threads nor its files come along.",
                cure="Open a client in each process, after the fork.",
            )
        if self._closed:
            raise SettingsError("The client is closed.", cure="Open another one.")

    def _route(self, aggregate: type[Any], timeout_seconds: float = COMING_SECONDS) -> Route:
        name = wire_name(aggregate)
        route = self._routes.get(name)
        if route is None:
            with self._opening:  # on Pulsar it takes a moment: asks under way need not wait for it
                route = self._routes.get(name)
                if route is None:
                    route = self._routes[name] = self._opened(name, timeout_seconds)
        return route

    def _opened(self, aggregate: str, timeout_seconds: float) -> Route:
        """While `magnetar dev` starts or reloads, the topics may not be there yet, or not know a new schema: wait."""
        began = self._clock.monotonic()
        while True:
            try:
                return Route(self._log, self._pipeline, aggregate)
            except (LogUnavailable, SettingsError):
                if self._is_coming is None:
                    raise
                patience = timeout_seconds if self._is_coming() else min(timeout_seconds, CALLED_SECONDS)
                if self._clock.monotonic() - began > patience:
                    raise
            self._clock.sleep(_LOOK_SECONDS)

    # --- who decides ------------------------------------------------------------------------------------------------

    @property
    def is_coming(self) -> bool:
        """Whether a `magnetar dev` lives, whose worker may just be starting."""
        return self._is_coming is not None and self._is_coming()

    def nobody_decides(self, aggregate: type[Any], id: str) -> bool:
        """Whether commands wait where this aggregate lives and no worker takes them, as far as the log knows."""
        name = wire_name(aggregate)
        if not isinstance(self._log, KnowsBacklog) or name not in self._routes:
            return False
        at, backlog = self._backlogs.get(name, (0.0, None))
        if backlog is None or self._clock.monotonic() - at > _BACKLOG_SECONDS:
            try:
                backlog = self._log.backlog(self._pipeline.topic(name, TopicKind.COMMANDS))
            except MagnetarError:
                return False
            self._backlogs[name] = (self._clock.monotonic(), backlog)
        there = backlog[partition_of(id, self._pipeline.partitions)]
        return there.active is None and there.waiting > 0

    def why_no_answer(self, aggregate: type[Any], id: str, timeout_seconds: float) -> str:
        """What is to be said of an ask that nobody answered in time. Looks into the log."""
        late = f"no answer came within {timeout_seconds:g} s"
        if self.nobody_decides(aggregate, id):
            late += f", and {self.who_is_missing(aggregate, id)}: it is decided as soon as one {self._does(aggregate)}"
        return late

    def who_is_missing(self, aggregate: type[Any], id: str) -> str:
        """Behind `nobody_decides`: that no worker runs, or that those who run leave this partition alone."""
        name = wire_name(aggregate)
        if not self._others_are_taken(aggregate):
            return f"no worker takes commands of {name}"
        return (
            f"no worker takes partition {partition_of(id, self._pipeline.partitions)} of {name}, while others are "
            "taken: a worker has refused it, and says why in its log (`partition refused`)"
        )

    def _others_are_taken(self, aggregate: type[Any]) -> bool:
        return any(each.active is not None for each in self._backlogs[wire_name(aggregate)][1])

    def _does(self, aggregate: type[Any]) -> str:
        return "takes it" if self._others_are_taken(aggregate) else "runs"

    # --- the course of an ask ---------------------------------------------------------------------------------------

    def _take_turn(self, ask: Ask, partition: int, parcel: Parcel) -> None:
        with self._lock:
            if self._under_way >= ASKS_MAX:
                self._turns.append((ask, partition, parcel))
                return
            ask.has_turn = True
            self._under_way += 1
        self._outbox.put(ask.route.publisher, partition, parcel)

    def _was_written(self, ask: Ask, stored: Future[None]) -> None:
        """Called when the command is durable, or will not be: then nobody need wait for a reply."""
        if stored.cancelled():
            return
        if (error := stored.exception()) is not None:
            self._replies.fail(ask, error)
        else:
            ask.stored_at = self._clock.monotonic()

    def _watch(self) -> None:
        """Begin to look for replies that are lost, on a log that loses some."""
        if not isinstance(self._log, LosesReplies):
            return
        with self._lock:
            if self._repeats is None and not self._closed:
                self._repeats = Repeats(self._log, self._replies.late, self._repeat, self._clock)

    def _repeat(self, ask: Ask) -> None:
        """Send a command once more, and watch it again when that has ended, well or not."""
        ask.was_repeated, ask.stored_at, ask.end = True, None, None
        parcel = Parcel(ask.entry, ask.command_id, self._clock.monotonic() + _REPEAT_SECONDS, Future())
        parcel.stored.add_done_callback(partial(self._was_written_again, ask))
        self._outbox.put(ask.route.publisher, ask.route.partition_of(ask.aggregate_id), parcel)

    def _was_written_again(self, ask: Ask, _: Future[None]) -> None:
        ask.stored_at = self._clock.monotonic()

    def _is_over(self, ask: Ask, parcel: Parcel, _: Future[Receipt[Any]]) -> None:
        """Called when an ask has its receipt, or an error, or was given up: the next one has its turn."""
        self._replies.forget(ask)
        parcel.stored.cancel()
        with self._lock:
            if not ask.has_turn:
                return
            self._under_way -= 1
            following = next((turn for turn in self._waiting_for_turns() if not turn[0].receipt.done()), None)
            if following is None:
                return
            following[0].has_turn = True
            self._under_way += 1
        next_ask, partition, next_parcel = following
        self._outbox.put(next_ask.route.publisher, partition, next_parcel)

    def _waiting_for_turns(self) -> Iterator[tuple[Ask, int, Parcel]]:
        while self._turns:
            yield self._turns.popleft()


def _flush(chunks: dict[tuple[Route, int], list[Entry]], timeout_seconds: float) -> int:
    for (route, partition), entries in chunks.items():
        route.publisher.publish(partition, entries, timeout_seconds=timeout_seconds)
    return sum(len(entries) for entries in chunks.values())
