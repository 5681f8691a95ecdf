"""Sending to Pulsar: fast, and never lost in silence."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import _pulsar
import pulsar
import pulsar.schema
from magnetar.schemas import LogUnavailable, MagnetarError, MessageId, MessageRefused, OutcomeUnknown, OwnershipLost

from ..clock import Clock
from ..log import Entry

SLICE_MESSAGES_MAX: Final = 5000
"""Sent before the last of them is waited for: half of the producer's queue, so that a send never blocks on it."""

SLICE_BYTES_MAX: Final = 16 * 1024 * 1024


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


class Sender:
    """One producer. A Python callback per message would cost more than all the rest: only the last of a slice has one.

    Why that is safe: one producer's messages are confirmed in their order; the queue is never full, nothing is over the
    size limit, and nothing times out in the client, so none can be dropped on the way without the last one failing too.
    """

    def __init__(self, producer: Any, bytes_max: int, clock: Clock) -> None:
        self._producer = producer
        self._bytes_max = bytes_max
        self._clock = clock

    def send(self, entries: Sequence[Entry], timeout_seconds: float) -> MessageId:
        """Send the entries and wait until the last is stored. Raises OwnershipLost, OutcomeUnknown, MessageRefused."""
        for entry in entries:
            if len(entry.payload) > self._bytes_max:
                raise MessageRefused(
                    f"A message of {len(entry.payload):,} bytes was not stored; the limit: {self._bytes_max:,}.",
                    cure="Keep large things elsewhere, and name them in the message.",
                )
        deadline = self._clock.monotonic() + timeout_seconds
        last = MessageId(-1, -1, -1)
        for part in _slices(entries):
            last = self._send_slice(part, deadline)
        return last

    def _send_slice(self, entries: Sequence[Entry], deadline: float) -> MessageId:
        confirmed = threading.Event()
        answer: list[Any] = []

        def settle(result: Any, id: Any) -> None:  # on the client's thread: it must not raise
            answer.append((result, id))
            confirmed.set()

        send = self._producer.send_async
        try:
            for key, payload in entries[:-1]:
                send(payload, None, partition_key=key or None)
            key, payload = entries[-1]
            send(payload, settle, partition_key=key or None)
            if not confirmed.wait(max(0.0, deadline - self._clock.monotonic())):
                raise OutcomeUnknown(f"Pulsar did not confirm {len(entries)} messages in time.")
            result, id = answer[0]
            if result != _pulsar.Result.Ok:
                raise _failure(result)
            self._producer.flush()  # nothing is under way any more; it says so if something was lost before
        except pulsar.PulsarException as error:
            raise _failure(getattr(error, "args", [error])[0], error) from error
        return MessageId(id.ledger_id(), id.entry_id(), id.batch_index())

    def close(self) -> None:
        """Close the producer, without waiting for what was not confirmed."""
        with contextlib.suppress(pulsar.PulsarException):
            self._producer.close()


def _failure(result: Any, error: Exception | None = None) -> MagnetarError:
    text = f"{type(error).__name__ if error else result}"
    if "Fenced" in text or "AlreadyClosed" in text:
        return OwnershipLost(f"Another producer has taken the partition over ({text}).")
    return OutcomeUnknown(f"Pulsar did not confirm the messages: {text}.")


def _slices(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    start = size = 0
    for index, entry in enumerate(entries):
        if index > start and (index - start >= SLICE_MESSAGES_MAX or size + len(entry.payload) > SLICE_BYTES_MAX):
            yield entries[start:index]
            start, size = index, 0
        size += len(entry.payload)
    if start < len(entries):
        yield entries[start:]


class PulsarAppender:
    """The exclusive producer of one partition of an event topic."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.closed = False

    def append(self, entries: Sequence[Entry], *, timeout_seconds: float) -> MessageId:
        """Store the entries in their order."""
        return self._sender.send(entries, timeout_seconds)

    def close(self) -> None:
        """Let go."""
        if not self.closed:
            self.closed = True
            # Closing waits for the broker, which may be frozen: nobody else shall wait with it.
            threading.Thread(target=self._sender.close, name="magnetar-close", daemon=True).start()


class PulsarPublisher:
    """Producers for the partitions of a command topic. Safe to share between threads."""

    def __init__(self, open_sender: Callable[[int], Sender]) -> None:
        self._open_sender = open_sender
        self._senders: dict[int, Sender] = {}
        self._lock = threading.Lock()
        self.closed = False

    def publish(self, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        """Store the entries in their order."""
        if not entries:
            return
        with self._lock:
            sender = self._senders.get(partition)
            if sender is None:
                sender = self._senders[partition] = self._open_sender(partition)
        try:
            sender.send(entries, timeout_seconds)
        except OwnershipLost as error:  # a command topic has no owner: the producer was closed
            raise LogUnavailable(f"The connection to Pulsar is closed: {error.what}") from error

    def close(self) -> None:
        """Close the producers."""
        self.closed = True
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()
