"""The client: `send` puts a command on its topic, `ask` waits for what became of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, LiteralString, Self, TypeVar

from magnetar.aggregates import Brain
from magnetar.projections import Fold, Row
from magnetar.projections.freshness import WAIT_SECONDS, Going, step, waiting
from magnetar.schemas import Command, Event, LogUnavailable

from .clock import Clock
from .connection import connect, settings_of
from .outgoing import Details, Outgoing, new_command_id
from .pipeline import Pipeline
from .reading import After, Found, Reading, Wanted, wanted_of
from .receipt import CommandParked, Receipt, unknown
from .settings import Settings

__all__ = ["Client", "CommandParked", "Found", "Outgoing", "Receipt", "SyncClient", "new_command_id"]

C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
O = TypeVar("O")  # noqa: E741 - the outcome, as in Brain[C, E, O]
F = TypeVar("F", bound=Fold)
R = TypeVar("R", bound=Row)
T = TypeVar("T")

ASK_TIMEOUT_SECONDS: Final = 30.0


class SyncClient:
    """The client for ordinary code: every call waits. Safe to share between threads; each process opens its own."""

    def __init__(self, pipeline: Pipeline, *, settings: Settings | None = None, clock: Clock | None = None) -> None:
        """Open the log that the settings name, by default those in the environment."""
        settings = settings or settings_of(pipeline)
        self._connection = connect(pipeline, settings, clock)
        self._reading = Reading(pipeline, settings)

    def send(
        self,
        aggregate: type[Brain[C, E, O]],
        id: str,
        command: C,
        /,
        *,
        command_id: str | None = None,
        actor: str | None = None,
        expected_version: int | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> str:
        """Put a command on its topic; returns its id when it is durable.

        The arguments are those of `ask`. Raises MessageRefused if it cannot be sent as it is, LogUnavailable or
        DataFolderError if the log takes nothing, and OutcomeUnknown if it did not confirm the command in time: sending
        it again with the same `command_id` is safe.
        """
        details = Details(command_id, actor, expected_version, correlation_id, causation_id, metadata)
        id_sent, stored = self._connection.send(aggregate, id, command, details, timeout_seconds)
        wait_for(id_sent, stored, timeout_seconds, partial(_unconfirmed, timeout_seconds))
        return id_sent

    def send_many(self, commands: Iterable[Outgoing], *, timeout_seconds: float = ASK_TIMEOUT_SECONDS) -> Iterable[int]:
        """Put many commands on their topics, in their order per aggregate; yields how many are durable, by the chunk.

        Raises as `send` does; the chunks yielded before are durable.
        """
        return self._connection.publish_many(commands, timeout_seconds)

    def ask(
        self,
        aggregate: type[Brain[C, E, O]],
        id: str,
        command: C,
        /,
        *,
        command_id: str | None = None,
        actor: str | None = None,
        expected_version: int | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> Receipt[O]:
        """Send a command, and wait for what becomes of it. A rejection is an outcome, and no error.

        `command_id` (UUIDv7; one is made if it is left out) is what makes repeating safe: an id is decided once, and a
        repeat within ten minutes of its making gets the first outcome. `actor` is who wants it, and reaches the
        aggregate in its `meta`. With `expected_version` the command is parked unless the aggregate is at it.
        `correlation_id` (by default the command's id) and `causation_id` are UUIDs that say what it belongs to and
        follows from; `metadata` is carried into the commit.

        Raises CommandParked if it could not be decided, MessageRefused if it cannot be sent as it is (nothing was),
        LogUnavailable or DataFolderError if the log takes nothing, and OutcomeUnknown if no answer came in time:
        asking again with the same `command_id`, which is in the error's `fields`, is safe.
        """
        details = Details(command_id, actor, expected_version, correlation_id, causation_id, metadata)
        id_asked, receipt = self._connection.ask(aggregate, id, command, details, timeout_seconds)
        late = partial(self._connection.why_no_answer, aggregate, id, timeout_seconds)
        return wait_for(id_asked, receipt, timeout_seconds, late)

    def query(
        self,
        projection: type[R],
        where: LiteralString = "1",
        /,
        *,
        after: After = None,
        wait_seconds: float = WAIT_SECONDS,
        stale: bool = False,
        order_by: LiteralString = "",
        limit: int | None = None,
        **parameters: object,
    ) -> Found[R]:
        """The rows of a projection for which a condition in ClickHouse's SQL holds: `"pieces > {n:Int64}", n=3`.

        Values are given as parameters, never put into the text, which therefore has to stand in the code.

        1. With `after`, a receipt or its position or several, waits until the projection has all up to there. 2. Asks.
        When `wait_seconds` are over, raises TablesBehind; with `stale`, takes the rows that are there, and says in
        `behind` of what it gives how far they were. `wait_seconds=0` looks once. The time of the query is not counted.

        Raises QueryRefused in ClickHouse's own words, SettingsError for a projection or a position of another
        pipeline, StoreUnavailable if nobody has the tables open, and Undecodable for a row that does not fit the class.
        """
        wanted = Wanted(
            where=where,
            parameters=parameters,
            order_by=order_by,
            limit=limit,
            after=after,
            wait_seconds=wait_seconds,
            stale=stale,
        )
        return waiting(self._reading.attempts(projection, wanted))

    def get(
        self, projection: type[F], key: str, /, *, after: After = None, wait_seconds: float = WAIT_SECONDS
    ) -> F | None:
        """The row that a fold has of one aggregate, by its id; None if it has none: nothing has happened, or `apply`
        has removed it.

        `after` and `wait_seconds` are as in `query`, and so is what it raises; TablesBehind when the wait is over.
        SettingsError also for a fold with `by` or a window, which has more rows than one of an aggregate.
        """
        return waiting(self._reading.attempts(projection, wanted_of(projection, key, after, wait_seconds))).first

    def close(self) -> None:
        """Close the connection. Asks under way end with OutcomeUnknown."""
        self._connection.close()
        self._reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Client:
    """The client for asyncio. It may be made outside of an event loop, and used in several.

    Thousands of asks can be under way at once; those that come at the same time are written together.
    """

    def __init__(self, pipeline: Pipeline, *, settings: Settings | None = None, clock: Clock | None = None) -> None:
        """Open the log that the settings name, by default those in the environment. On Pulsar this waits for it."""
        settings = settings or settings_of(pipeline)
        self._connection = connect(pipeline, settings, clock)
        self._reading = Reading(pipeline, settings)

    async def send(
        self,
        aggregate: type[Brain[C, E, O]],
        id: str,
        command: C,
        /,
        *,
        command_id: str | None = None,
        actor: str | None = None,
        expected_version: int | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> str:
        """As `SyncClient.send`."""
        details = Details(command_id, actor, expected_version, correlation_id, causation_id, metadata)
        await self._prepare(aggregate, timeout_seconds, asking=False)
        id_sent, stored = self._connection.send(aggregate, id, command, details, timeout_seconds)
        await _wait_async(id_sent, stored, timeout_seconds, partial(_unconfirmed, timeout_seconds))
        return id_sent

    async def ask(
        self,
        aggregate: type[Brain[C, E, O]],
        id: str,
        command: C,
        /,
        *,
        command_id: str | None = None,
        actor: str | None = None,
        expected_version: int | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> Receipt[O]:
        """As `SyncClient.ask`. Cancelled, it waits no longer; the command may have been sent."""
        details = Details(command_id, actor, expected_version, correlation_id, causation_id, metadata)
        await self._prepare(aggregate, timeout_seconds, asking=True)
        id_asked, receipt = self._connection.ask(aggregate, id, command, details, timeout_seconds)
        late = partial(self._connection.why_no_answer, aggregate, id, timeout_seconds)
        return await _wait_async(id_asked, receipt, timeout_seconds, late)

    async def query(
        self,
        projection: type[R],
        where: LiteralString = "1",
        /,
        *,
        after: After = None,
        wait_seconds: float = WAIT_SECONDS,
        stale: bool = False,
        order_by: LiteralString = "",
        limit: int | None = None,
        **parameters: object,
    ) -> Found[R]:
        """As `SyncClient.query`."""
        wanted = Wanted(
            where=where,
            parameters=parameters,
            order_by=order_by,
            limit=limit,
            after=after,
            wait_seconds=wait_seconds,
            stale=stale,
        )
        return await self._read(projection, wanted)

    async def get(
        self, projection: type[F], key: str, /, *, after: After = None, wait_seconds: float = WAIT_SECONDS
    ) -> F | None:
        """As `SyncClient.get`."""
        return (await self._read(projection, wanted_of(projection, key, after, wait_seconds))).first

    async def _read(self, projection: type[R], wanted: Wanted) -> Found[R]:
        attempts = self._reading.attempts(projection, wanted)
        while True:
            found = await asyncio.to_thread(step, attempts)
            if not isinstance(found, Going):
                return found
            await asyncio.sleep(found.pause_seconds)

    async def close(self) -> None:
        """Close the connection. Asks under way end with OutcomeUnknown."""
        closed: Future[None] = Future()
        threading.Thread(target=_run, args=(self._connection.close, closed), name="magnetar-close").start()
        await asyncio.wrap_future(closed)
        self._reading.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _prepare(self, aggregate: type[Any], timeout_seconds: float, *, asking: bool) -> None:
        preparing = self._connection.preparing(aggregate, asking=asking)
        if preparing is None:
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.wrap_future(preparing)
        except TimeoutError:
            raise LogUnavailable(
                f"The log did not answer within {timeout_seconds:g} s: nothing was sent.",
                cure="See whether the broker runs, and try again.",
            ) from None


def _run(work: Callable[[], None], done: Future[None]) -> None:
    """Not on the loop's own threads: all of them may be busy with something that never ends."""
    done.set_running_or_notify_cancel()
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - theirs who wait
        done.set_exception(error)
    else:
        done.set_result(None)


def _unconfirmed(timeout_seconds: float) -> str:
    return f"the log did not confirm it within {timeout_seconds:g} s"


def wait_for(command_id: str, future: Future[T], timeout_seconds: float, late: Callable[[], str]) -> T:
    """What the future comes to. Raises OutcomeUnknown, saying what `late` says, if it takes longer."""
    try:
        return future.result(timeout_seconds)
    except TimeoutError:
        if not future.cancel():  # it has ended in this very moment
            return future.result()
        raise unknown(command_id, late()) from None
    except BaseException:
        future.cancel()
        raise


async def _wait_async(command_id: str, future: Future[T], timeout_seconds: float, late: Callable[[], str]) -> T:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise unknown(command_id, await asyncio.to_thread(late)) from None
