"""Sending to Pulsar: fast, never lost in silence, and never waiting past its deadline."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import _pulsar
import pulsar
import pulsar.schema
from magnetar.schemas import LogUnavailable, MagnetarError, MessageId, MessageRefused, OutcomeUnknown, OwnershipLost

from ..clock import Clock
from ..log import Entry

PENDING_MESSAGES_MAX: Final = 10_000
"""The producer's queue. A send into a full one would block until the broker answers, with no deadline, so `_Room`
counts what is under way and lets nothing past this number."""

SLICE_MESSAGES_MAX: Final = 5000
"""Sent before the last of them is waited for."""

SLICE_BYTES_MAX: Final = 16 * 1024 * 1024

LARGE_BYTES_MIN: Final = 64 * 1024
"""From this size on a message has a callback of its own: a broker whose limit is under ours refuses it alone."""

_OPENING_AT_ONCE_MAX: Final = 4


class PassThrough(pulsar.schema.Schema):  # type: ignore[misc] # pulsar has no types
    """Tells the broker which schema the messages have, and leaves their bytes alone."""

    def __init__(self, text: str) -> None:
        super().__init__(bytes, _pulsar.SchemaType.AVRO, json.loads(text), "AVRO")

    def encode(self, obj: bytes) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The bytes, as they are."""
        return obj

    def decode(self, data: bytes) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The bytes, as they are."""
        return data


class _Room:
    """How many more messages the producer's queue takes, over all threads that send."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    def take(self, count: int, seconds: float) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= count, max(0.0, seconds)):
                return False
            self._free -= count
            return True

    def give_back(self, count: int) -> None:
        with self._changed:
            self._free += count
            self._changed.notify_all()


class Sender:
    """One producer, shared by any threads. A Python callback per message would cost more than all the rest together.

    Only the last message of a slice has one, and those that are large. Why that is safe: a producer's messages are
    confirmed in their order; nothing over our limit is handed to it, its queue is never full, and nothing times out in
    the client. So none is dropped on the way without the last one failing too, but one that is too large for a broker
    whose limit is lower.
    """

    def __init__(self, producer: Any, bytes_max: int, clock: Clock) -> None:
        self._producer = producer
        self._bytes_max = bytes_max
        self._clock = clock
        self._room = _Room(PENDING_MESSAGES_MAX)
        self.failed = False
        """Whether the broker has refused something: the producer is of no more use."""

    def send(self, entries: Sequence[Entry], timeout_seconds: float) -> MessageId:
        """Send the entries and wait until all are stored. Raises OwnershipLost, OutcomeUnknown, MessageRefused."""
        return self.begin(entries, timeout_seconds).wait()

    def begin(self, entries: Sequence[Entry], timeout_seconds: float) -> Sending:
        """Send the entries, the last slice of them without waiting until they are stored."""
        for entry in entries:
            if len(entry.payload) > self._bytes_max:
                raise MessageRefused(
                    f"A message of {len(entry.payload):,} bytes was not stored; the limit: {self._bytes_max:,}.",
                    cure="Keep large things elsewhere, and name them in the message.",
                )
        deadline = self._clock.monotonic() + timeout_seconds
        *others, last = _slices(entries)
        for part in others:
            self._begin_slice(part, deadline).wait()
        return self._begin_slice(last, deadline)

    def _begin_slice(self, entries: Sequence[Entry], deadline: float) -> Sending:
        if not self._room.take(len(entries), deadline - self._clock.monotonic()):
            raise OutcomeUnknown(f"Pulsar did not confirm what was sent before these {len(entries)} messages in time.")
        sending = Sending(self, len(entries), deadline, self._clock)

        def settle(result: Any, id: Any) -> None:  # on the client's thread: it must not raise
            self._room.give_back(len(entries))
            sending.settle(result, id)

        self._hand_over(entries, sending.note, settle)
        return sending

    def _hand_over(
        self, entries: Sequence[Entry], note: Callable[[Any, Any], None], settle: Callable[[Any, Any], None]
    ) -> None:
        send = self._producer.send_async
        try:
            for key, payload in entries[:-1]:
                send(payload, None if len(payload) < LARGE_BYTES_MIN else note, partition_key=key or None)
            key, payload = entries[-1]
            send(payload, settle, partition_key=key or None)
        except BaseException as error:
            self._room.give_back(len(entries))  # the last one, whose callback does so, was not taken
            self.failed = True
            if isinstance(error, pulsar.PulsarException):
                raise _failure(type(error).__name__) from error
            raise

    def flush(self) -> None:
        """Ask whether anything was lost. Only for the one thread of an appender, with nothing under way.

        Then it answers at once, on a frozen broker too; otherwise it waits with no deadline. The client's own
        `flush_async` is no way out: it takes the producer's lock with the interpreter's lock in hand, the client's
        thread takes them the other way round, and both stand still for ever.
        """
        try:
            self._producer.flush()
        except pulsar.PulsarException as error:
            self.failed = True
            raise _failure(type(error).__name__) from error

    def close(self) -> None:
        """Close the producer, without waiting for what was not confirmed."""
        with contextlib.suppress(pulsar.PulsarException):
            self._producer.close()


class Sending:
    """A slice on its way to Pulsar."""

    def __init__(self, sender: Sender, count: int, deadline: float, clock: Clock) -> None:
        self._sender = sender
        self._count = count
        self._deadline = deadline
        self._clock = clock
        self._answer: tuple[Any, Any] | None = None
        self._refused: tuple[Any, Any] | None = None
        self._answered = threading.Event()

    def note(self, result: Any, id: Any) -> None:
        """What Pulsar has answered for a large message before the last."""
        if result != _pulsar.Result.Ok:
            self._refused = result, id

    def settle(self, result: Any, id: Any) -> None:
        """What Pulsar has answered for the last message, which is for all of them that are not large."""
        self._answer = self._refused or (result, id)
        self._answered.set()

    @property
    def is_over(self) -> bool:
        """Whether Pulsar has answered, or had the time to."""
        return self._answered.is_set() or self._clock.monotonic() > self._deadline

    def wait(self) -> MessageId:
        """The place of the last message. Raises OwnershipLost, OutcomeUnknown."""
        self._answered.wait(max(0.0, self._deadline - self._clock.monotonic()))
        if self._answer is None:
            raise OutcomeUnknown(f"Pulsar did not confirm {self._count} messages in time.")
        result, id = self._answer
        if result != _pulsar.Result.Ok:
            self._sender.failed = True
            raise _failure(str(result))
        return MessageId(id.ledger_id(), id.entry_id(), id.batch_index())


def _failure(result: str) -> MagnetarError:
    if "Fenced" in result or "AlreadyClosed" in result:
        return OwnershipLost(f"Another producer has taken the partition over ({result}).")
    return OutcomeUnknown(f"Pulsar did not confirm the messages: {result}.")


def _slices(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    start = size = 0
    for index, entry in enumerate(entries):
        if index > start and (index - start >= SLICE_MESSAGES_MAX or size + len(entry.payload) > SLICE_BYTES_MAX):
            yield entries[start:index]
            start, size = index, 0
        size += len(entry.payload)
    if start < len(entries):
        yield entries[start:]


class PulsarAppending:
    """An appender's entries on their way."""

    def __init__(self, sender: Sender, sending: Sending) -> None:
        self._sender = sender
        self._sending = sending

    @property
    def is_over(self) -> bool:
        """Whether Pulsar has answered, or had the time to."""
        return self._sending.is_over

    def wait(self) -> MessageId:
        """The place of the last entry."""
        last = self._sending.wait()
        self._sender.flush()
        if last.entry < 0:
            # Sent again after a reconnect, and recognized by the broker as stored: it does not say where.
            raise OutcomeUnknown("Pulsar confirmed messages as repeated ones, without their places.")
        return last


class PulsarAppender:
    """The exclusive producer of one partition of an event topic."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.closed = False

    def begin(self, entries: Sequence[Entry], *, timeout_seconds: float) -> PulsarAppending:
        """Send the entries in their order, at least one."""
        return PulsarAppending(self._sender, self._sender.begin(entries, timeout_seconds))

    def append(self, entries: Sequence[Entry], *, timeout_seconds: float) -> MessageId:
        """Store the entries in their order."""
        return self.begin(entries, timeout_seconds=timeout_seconds).wait()

    def close(self) -> None:
        """Let go."""
        if not self.closed:
            self.closed = True
            # Closing waits for the broker, which may be frozen: nobody else shall wait with it.
            threading.Thread(target=self._sender.close, name="magnetar-close", daemon=True).start()


class PulsarPublisher:
    """Producers for the partitions of a command topic. Safe to share between threads."""

    def __init__(self, open_sender: Callable[[int], Sender], clock: Clock) -> None:
        self._open_sender = open_sender
        self._clock = clock
        self._senders: dict[int, Future[Sender]] = {}
        self._opening = ThreadPoolExecutor(_OPENING_AT_ONCE_MAX, thread_name_prefix="magnetar-publisher")
        self._lock = threading.Lock()
        self.closed = False

    def publish(self, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        """Store the entries in their order. Raises LogUnavailable if nothing could be sent."""
        if not entries:
            return
        deadline = self._clock.monotonic() + timeout_seconds
        sender = self._sender(partition, timeout_seconds)
        try:
            sender.send(entries, deadline - self._clock.monotonic())
        except OwnershipLost as error:  # a command topic has no owner: the producer was closed under way
            raise OutcomeUnknown(f"Pulsar closed the producer while publishing: {error.what}") from error

    def _sender(self, partition: int, timeout_seconds: float) -> Sender:
        with self._lock:
            opening = self._senders.get(partition)
            if opening is not None and opening.done():
                if opening.exception() is not None:
                    opening = None
                elif opening.result().failed:
                    self._opening.submit(opening.result().close)
                    opening = None
            if opening is None:
                opening = self._senders[partition] = self._opening.submit(self._open_sender, partition)
        try:
            return opening.result(timeout_seconds)
        except TimeoutError as error:
            raise LogUnavailable(f"Pulsar did not open partition {partition} in time.") from error

    def close(self) -> None:
        """Close the producers."""
        self.closed = True
        self._opening.shutdown(wait=False, cancel_futures=True)
        for opening in self._senders.values():
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().close()
        self._senders.clear()
