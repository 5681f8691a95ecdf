"""Sharing out partitions among workers: one Failover consumer per partition, spread and moved by the broker."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

import pulsar
from magnetar.schemas import MessageId

from ..log import Batch, Message

CHUNK_MAX: Final = 1000
_POLL_MS: Final = 200


class _Part:
    """One partition's consumer, and the thread that empties it: waiting in one thread per consumer takes messages over
    in two milliseconds, where asking sixteen in turn would take eighty."""

    def __init__(self, partition: int, consumer: Any, chunks: queue.Queue[tuple[_Part, list[Message]]]) -> None:
        self.partition = partition
        self.consumer = consumer
        self.taken = threading.Semaphore(1)
        self.closed = False
        self._chunks = chunks
        self._thread = threading.Thread(target=self._run, name=f"magnetar-consumer-{partition}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from .pulsar import message_of

        while not self.closed:
            try:
                chunk = [message_of(self.consumer.receive(_POLL_MS))]
                with contextlib.suppress(pulsar.Timeout):
                    while len(chunk) < CHUNK_MAX:
                        chunk.append(message_of(self.consumer.receive(1)))
            except pulsar.Timeout:
                continue
            except pulsar.PulsarException:
                return
            while not self.taken.acquire(timeout=0.2):  # one chunk ahead, no more
                if self.closed:
                    return
            self._chunks.put((self, chunk))

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self.consumer.close()
        self._thread.join(5)


class PulsarConsumer:
    """One worker's part in a command topic."""

    def __init__(self, partitions: int, subscribe: Callable[[int], Any], is_active: Callable[[int], bool]) -> None:
        self._subscribe = subscribe
        self._is_active = is_active
        self._chunks: queue.Queue[tuple[_Part, list[Message]]] = queue.Queue()
        self._rest: dict[int, tuple[_Part, list[Message]]] = {}
        self._parts = {p: self._open(p) for p in range(partitions)}
        self.closed = False

    def _open(self, partition: int) -> _Part:
        return _Part(partition, self._subscribe(partition), self._chunks)

    def receive(self, *, messages_max: int, timeout_seconds: float) -> Batch | None:
        """Wait for a chunk of any partition; chunks of a part that has been closed since are dropped."""
        if self._rest:
            part, chunk = self._rest.pop(next(iter(self._rest)))
        else:
            try:
                part, chunk = self._chunks.get(timeout=max(timeout_seconds, 0.001))
            except queue.Empty:
                return None
            part.taken.release()
        if self._parts.get(part.partition) is not part:
            return None
        if len(chunk) > messages_max:
            self._rest[part.partition] = (part, chunk[messages_max:])
            chunk = chunk[:messages_max]
        return Batch(part.partition, chunk)

    def is_granted(self, partition: int) -> bool:
        """Ask the broker."""
        return partition in self._parts and self._is_active(partition)

    def acknowledge(self, partition: int, through: MessageId) -> None:
        """Acknowledge cumulatively."""
        part = self._parts.get(partition)
        if part is not None:
            with contextlib.suppress(pulsar.PulsarException):
                id = pulsar.MessageId(partition, through.ledger, through.entry, through.batch)
                part.consumer.acknowledge_cumulative(id)

    def release(self, partition: int) -> None:
        """Close the partition's consumer and subscribe again: what was prefetched comes again."""
        self.leave(partition)
        self._parts[partition] = self._open(partition)

    def leave(self, partition: int) -> None:
        """Close the partition's consumer."""
        self._rest.pop(partition, None)
        part = self._parts.pop(partition, None)
        if part is not None:
            part.close()

    def close(self) -> None:
        """Leave all partitions."""
        self.closed = True
        for partition in list(self._parts):
            self.leave(partition)
