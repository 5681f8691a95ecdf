"""The client: `send` puts a command on its topic, `ask` waits for what became of it."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from magnetar.aggregates import Aggregate, Brain
from magnetar.schemas import (
    Command,
    Event,
    MagnetarError,
    MessageRefused,
    OutcomeUnknown,
    Position,
    SettingsError,
    TopicKind,
    is_uuid7,
    partition_of,
    uuid7,
    why_bad_aggregate_id,
    wire_name,
)
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope
from magnetar.schemas.commit import PARKED, Commit, CommitCodec, Parked, read_command_id
from magnetar.schemas.errors import Fault

from .clock import Clock, SystemClock
from .history import Codecs
from .log import Entry, Inbox, Log, Publisher
from .pipeline import Pipeline
from .reply import Reply
from .settings import Settings, load_settings, open_log

C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
O = TypeVar("O")  # noqa: E741 - the outcome, as in Brain[C, E, O]

ASK_TIMEOUT_SECONDS: Final = 30.0
_CHUNK_MAX: Final = 5000


class Receipt(Generic[O]):
    """What became of a command: its outcome, the aggregate's version after it, and where its commit stands."""

    __slots__ = ("outcome", "position", "version")

    def __init__(self, outcome: O, version: int, position: Position) -> None:
        self.outcome = outcome
        self.version = version
        self.position = position

    def __repr__(self) -> str:
        return f"Receipt(outcome={self.outcome!r}, version={self.version}, position={self.position!r})"


class CommandParked(MagnetarError):
    """The command could not be decided. It stands in the log with its reason; the same id gets the same answer."""

    fault = Fault.YOURS

    def __init__(self, parked: Parked, position: Position) -> None:
        super().__init__(
            f"The command was parked at {position}: {parked.reason} ({parked.detail}).",
            cure="Mend the reason, and send the command again under a new id.",
            reason=parked.reason,
            position=position,
        )
        self.reason = parked.reason
        self.position = position


class Outgoing(NamedTuple):
    """One command on its way, for `send_many`."""

    aggregate: type[Aggregate]
    id: str
    command: Command
    command_id: str | None = None


class _Route:
    """What is needed to send to one aggregate, and to read what it answers."""

    def __init__(self, log: Log, pipeline: Pipeline, aggregate: str) -> None:
        schema = pipeline.schema_of(aggregate)
        self.aggregate = aggregate
        self.context = pipeline.name
        self.commands = CommandCodec(schema)
        self.publisher: Publisher = log.publisher(
            pipeline.topic(aggregate, TopicKind.COMMANDS), schema=schema.command_json
        )
        self.codecs = Codecs(log, pipeline.topic(aggregate, TopicKind.EVENTS), CommitCodec(schema))


class Connection:
    """The common ground of both clients: encodes and routes commands, and waits for replies on a thread of its own.

    Safe to share between threads.
    """

    def __init__(self, pipeline: Pipeline, log: Log, *, clock: Clock) -> None:
        self._pipeline = pipeline
        self._log = log
        self._clock = clock
        self._routes: dict[str, _Route] = {}
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[_Route, Future[Receipt[Any]]]] = {}
        self._inbox: Inbox | None = None
        self._listener: threading.Thread | None = None
        self._closed = False

    def envelope(
        self,
        id: str,
        *,
        command_id: str | None = None,
        actor: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        expected_version: int | None = None,
        metadata: Mapping[str, str] | None = None,
        reply_to: str | None = None,
    ) -> CommandEnvelope:
        """Fill in what a sender leaves out. Raises MessageRefused for an id that cannot be one."""
        if (why := why_bad_aggregate_id(id)) is not None:
            raise MessageRefused(f"The command was not sent: {why}.", cure="Ids are 1 to 512 printable bytes of UTF-8.")
        now_ms = self._clock.now_ms()
        if command_id is None:
            command_id = uuid7(now_ms, secrets.randbits(74))
        elif not is_uuid7(command_id):
            raise MessageRefused(
                f"The command was not sent: {command_id!r} is not a UUID version 7 in lower case.",
                cure="Leave the id out, or make it with magnetar.schemas.uuid7.",
            )
        return CommandEnvelope(
            id,
            command_id,
            now_ms * 1000,
            correlation_id or command_id,
            causation_id,
            actor,
            expected_version,
            reply_to,
            dict(metadata or {}),
        )

    def publish(self, aggregate: type[Any], envelope: CommandEnvelope, command: Command, timeout_seconds: float) -> str:
        """Put one command on its topic; returns its id when it is durable."""
        route = self._route(aggregate)
        payload = self._encode(route, envelope, command)
        partition = partition_of(envelope.aggregate_id, self._pipeline.partitions)
        entry = Entry(envelope.aggregate_id, payload)
        route.publisher.publish(partition, [entry], timeout_seconds=timeout_seconds)
        return envelope.command_id

    def publish_many(self, commands: Iterable[Outgoing], timeout_seconds: float) -> Iterable[int]:
        """Put many commands on their topics, in order per aggregate; yields how many are durable, by the chunk."""
        chunks: dict[tuple[str, int], list[Entry]] = {}
        size = 0
        for outgoing in commands:
            route = self._route(outgoing.aggregate)
            payload = self._encode(route, self.envelope(outgoing.id, command_id=outgoing.command_id), outgoing.command)
            partition = partition_of(outgoing.id, self._pipeline.partitions)
            chunks.setdefault((route.aggregate, partition), []).append(Entry(outgoing.id, payload))
            size += 1
            if size == _CHUNK_MAX:
                yield self._flush(chunks, timeout_seconds)
                chunks, size = {}, 0
        if size:
            yield self._flush(chunks, timeout_seconds)

    def _flush(self, chunks: dict[tuple[str, int], list[Entry]], timeout_seconds: float) -> int:
        for (aggregate, partition), entries in chunks.items():
            self._routes[aggregate].publisher.publish(partition, entries, timeout_seconds=timeout_seconds)
        return sum(len(entries) for entries in chunks.values())

    def ask(
        self, aggregate: type[Any], envelope: CommandEnvelope, command: Command, timeout_seconds: float
    ) -> Future[Receipt[Any]]:
        """Publish a command whose reply comes to this connection; the future is the receipt or the error."""
        route = self._route(aggregate)
        future: Future[Receipt[Any]] = Future()
        with self._lock:
            if envelope.command_id in self._waiting:
                raise MessageRefused(
                    f"Command {envelope.command_id} is being asked already.", cure="Wait for the first answer."
                )
            self._waiting[envelope.command_id] = (route, future)
        try:
            self.publish(aggregate, envelope, command, timeout_seconds)
        except BaseException:
            self.forget(envelope.command_id)
            raise
        return future

    def forget(self, command_id: str) -> None:
        """Wait no longer for this command's reply."""
        with self._lock:
            self._waiting.pop(command_id, None)

    def reply_address(self) -> str:
        """Where replies come in; opens the inbox at the first ask."""
        with self._lock:
            if self._closed:
                raise SettingsError("The client is closed.", cure="Open another one.")
            if self._inbox is None:
                self._inbox = self._log.inbox()
                self._listener = threading.Thread(target=self._listen, name="magnetar-replies", daemon=True)
                self._listener.start()
            return self._inbox.address

    def close(self) -> None:
        """Stop waiting, and close the log. Asks under way end with OutcomeUnknown."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for command_id, (_, future) in waiting.items():
            future.set_exception(unknown(command_id, "the client was closed"))
        if self._listener is not None:
            self._listener.join()  # the log's files must not be closed under its hands
        for route in self._routes.values():
            route.publisher.close()
        self._log.close()

    def _listen(self) -> None:
        inbox: Any = self._inbox
        while not self._closed:
            for payload in inbox.receive(timeout_seconds=0.2):
                self._settle(payload)
        inbox.close()

    def _settle(self, payload: bytes) -> None:
        """Hand a reply to whoever waits for it; one that nobody waits for, or that cannot be read, is dropped."""
        try:
            reply = Reply.decode(payload)
            command_id = read_command_id(reply.commit)
        except MagnetarError:
            return
        with self._lock:
            route, future = self._waiting.pop(command_id, (None, None))
        if route is None or future is None:
            return
        try:
            commit = route.codecs.of(reply.schema).decode(reply.commit)
            future.set_result(receipt(route.context, route.aggregate, reply.partition, commit))
        except MagnetarError as error:
            future.set_exception(error)

    def _encode(self, route: _Route, envelope: CommandEnvelope, command: Command) -> bytes:
        if not route.commands.declares(type(command)):
            raise MessageRefused(
                f"{route.aggregate} has no command {type(command).__qualname__}.",
                cure=f"Its commands are those of {route.aggregate}.execute.",
            )
        try:
            payload = route.commands.encode(envelope, command)
        except (TypeError, ValueError, OverflowError) as error:
            raise MessageRefused(
                f"The {wire_name(type(command))} was not sent: {error}.", cure="Correct the field."
            ) from error
        if len(payload) > self._log.message_bytes_max:
            raise MessageRefused(
                f"The {wire_name(type(command))} was not sent: it has {len(payload):,} bytes, "
                f"and the log takes {self._log.message_bytes_max:,}.",
                cure="Keep large things elsewhere, and name them in the command.",
            )
        return payload

    def _route(self, aggregate: type[Any]) -> _Route:
        name = wire_name(aggregate)
        route = self._routes.get(name)
        if route is None:
            with self._lock:
                route = self._routes.setdefault(name, _Route(self._log, self._pipeline, name))
        return route


def unknown(command_id: str, why: str) -> OutcomeUnknown:
    """The error for an ask that nobody has answered."""
    return OutcomeUnknown(
        f"What became of command {command_id} is unknown: {why}.",
        cure="Asking again with the same command id is safe: it is decided once.",
        command_id=command_id,
    )


def receipt(context: str, aggregate: str, partition: int, commit: Commit) -> Receipt[Any]:
    """What a commit says to whoever sent its command. Raises CommandParked for a parked one."""
    position = Position.of(context, aggregate, partition, commit.number)
    if commit.outcome == PARKED and commit.parked is not None:
        raise CommandParked(commit.parked, position)
    outcome: Any = commit.rejection
    if commit.events:
        outcome = commit.events[0] if len(commit.events) == 1 else commit.events
    return Receipt(outcome, commit.version + len(commit.events), position)


def connect(pipeline: Pipeline, settings: Settings | None = None, clock: Clock | None = None) -> Connection:
    """Open the log that the settings name, for one pipeline. Raises LogUnavailable if its topics are not there."""
    settings, clock = settings or load_settings(), clock or SystemClock()
    return Connection(pipeline, open_log(settings, clock), clock=clock)


class SyncClient:
    """The client for ordinary code: every call waits. Safe to share between threads."""

    def __init__(self, pipeline: Pipeline, *, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self._connection = connect(pipeline, settings, clock)

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
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> str:
        """Put a command on its topic; returns its id when it is durable.

        Raises MessageRefused if it cannot be sent as it is, and OutcomeUnknown if the log did not confirm it in time:
        sending it again with the same `command_id` is safe.
        """
        envelope = self._connection.envelope(
            id, command_id=command_id, actor=actor, expected_version=expected_version, metadata=metadata
        )
        return self._connection.publish(aggregate, envelope, command, timeout_seconds)

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
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> Receipt[O]:
        """Send a command and wait for what becomes of it.

        Raises CommandParked if it could not be decided, MessageRefused if it cannot be sent as it is, and
        OutcomeUnknown if no answer came in time: asking again with the same `command_id` is safe.
        """
        envelope = self._connection.envelope(
            id,
            command_id=command_id,
            actor=actor,
            expected_version=expected_version,
            metadata=metadata,
            reply_to=self._connection.reply_address(),
        )
        future = self._connection.ask(aggregate, envelope, command, timeout_seconds)
        try:
            return future.result(timeout_seconds)
        except FutureTimeoutError:
            self._connection.forget(envelope.command_id)
            raise unknown(envelope.command_id, f"no answer came within {timeout_seconds:g} s") from None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Client:
    """The client for asyncio."""

    def __init__(self, pipeline: Pipeline, *, settings: Settings | None = None, clock: Clock | None = None) -> None:
        self._connection = connect(pipeline, settings, clock)

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
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> str:
        """As `SyncClient.send`."""
        envelope = self._connection.envelope(
            id, command_id=command_id, actor=actor, expected_version=expected_version, metadata=metadata
        )
        return await asyncio.to_thread(self._connection.publish, aggregate, envelope, command, timeout_seconds)

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
        metadata: Mapping[str, str] | None = None,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> Receipt[O]:
        """As `SyncClient.ask`."""
        envelope = self._connection.envelope(
            id,
            command_id=command_id,
            actor=actor,
            expected_version=expected_version,
            metadata=metadata,
            reply_to=self._connection.reply_address(),
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                future = await asyncio.to_thread(self._connection.ask, aggregate, envelope, command, timeout_seconds)
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise unknown(envelope.command_id, f"no answer came within {timeout_seconds:g} s") from None
        finally:
            self._connection.forget(envelope.command_id)

    async def close(self) -> None:
        """Close the connection."""
        await asyncio.to_thread(self._connection.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
