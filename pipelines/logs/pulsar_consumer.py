"""Sharing out partitions among workers: one Failover consumer per partition, spread and moved by the broker."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pulsar
import structlog
from magnetar.schemas import AccessDenied, LogUnavailable, MessageId

from ..log import Batch, Message
from .pulsar_messages import follows, message_of

_POLL_MS: Final = 200
_FEW: Final = 16
"""From so many on it is a backlog, and the rest is taken in one call: over 16 partitions on a busy machine, 111,000 to
141,000 messages a second, where calls one by one made 50,000 to 114,000 (they hand the interpreter's lock around)."""

_MANY: Final = 1000
"""As many as a worker decides at once by default: a few more would be a chunk of their own, and wait for the broker."""

BACKLOG: Final = pulsar.ConsumerBatchReceivePolicy(_MANY - _FEW, -1, 1)
"""What one call takes: the rest of so many, or what there is after a millisecond."""

_UNCONNECTED_SECONDS_MAX: Final = 10.0
"""The client tries to connect for ever, and tells nobody, even where the topic is gone."""

_JOIN_AGAIN_SECONDS: Final = 5.0

_logger = structlog.get_logger("magnetar.consumer")


class _Chunk:
    """Messages on their way from a partition's thread to `receive`; none of them, if its consumer has failed."""

    def __init__(self, part: _Part, messages: list[tuple[Message, Any]], *, may_lack: bool = False) -> None:
        self.part = part
        self.messages = messages
        self.may_lack = may_lack


class _Part:
    """One partition's consumer, and the thread that empties it: waiting in one thread per consumer takes messages over
    in two milliseconds, where asking sixteen in turn would take eighty."""

    def __init__(self, partition: int, consumer: Any, chunks: queue.Queue[_Chunk]) -> None:
        self.partition = partition
        self.consumer = consumer
        self.taken = threading.Semaphore(1)
        self.given: deque[tuple[MessageId, Any]] = deque()
        """What `receive` has returned and nobody has acknowledged yet."""
        self.closed = False
        self._last: tuple[Message, Any] | None = None
        self._chunks = chunks
        self._thread = threading.Thread(target=self._run, name=f"magnetar-consumer-{partition}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connected_at = time.monotonic()
        while not self.closed:
            try:
                messages = self._next()
            except pulsar.Timeout:
                if self.consumer.is_connected():
                    connected_at = time.monotonic()
                if time.monotonic() - connected_at < _UNCONNECTED_SECONDS_MAX:
                    continue
                self._chunks.put(_Chunk(self, []))
                return
            except pulsar.PulsarException:
                if not self.closed:
                    self._chunks.put(_Chunk(self, []))
                return
            for chunk in self._whole(messages):
                while not self.taken.acquire(timeout=_POLL_MS / 1000):  # one chunk ahead, no more
                    if self.closed:
                        return
                self._chunks.put(chunk)

    def _whole(self, messages: list[tuple[Message, Any]]) -> list[_Chunk]:
        """Chunks without a gap in them, each with whether there may be one before it.

        When subscribing takes longer than the client's time-out, it subscribes once more and empties its queue, while
        the broker holds what was in there for delivered, and goes on behind it: seen after a broker's kill -9 on a busy
        machine, 150 commands long.
        """
        chunks: list[_Chunk] = []
        last = self._last
        for each in messages:
            if last is None or not follows(last, each[0].id):
                chunks.append(_Chunk(self, [], may_lack=True))
            elif not chunks:
                chunks.append(_Chunk(self, []))
            chunks[-1].messages.append(each)
            last = each
        self._last = last
        return chunks

    def _next(self) -> list[tuple[Message, Any]]:
        messages = [message_of(self.consumer.receive(_POLL_MS))]
        with contextlib.suppress(pulsar.Timeout):
            while len(messages) < _FEW:
                messages.append(message_of(self.consumer.receive(0)))
            messages += [message_of(received) for received in self.consumer.batch_receive()]
        return messages

    def acknowledge(self, through: MessageId) -> None:
        """Acknowledge with the client's own id, which alone knows its batch.

        One put together from numbers would acknowledge the whole batch, and what comes behind `through` in it would
        never be given to anybody again.
        """
        last: tuple[MessageId, Any] | None = None
        while self.given and self.given[0][0] <= through:
            given = self.given.popleft()
            if last is None or given[0] >= last[0]:  # after a reconnect, earlier ones stand behind later ones
                last = given
        if last is not None:
            with contextlib.suppress(pulsar.PulsarException):
                self.consumer.acknowledge_cumulative(last[1])

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self.consumer.close()
        self._thread.join(5)


class PulsarConsumer:
    """One worker's part in a command topic."""

    def __init__(
        self,
        partitions: int,
        subscribe: Callable[[int], Any],
        *,
        is_active: Callable[[int], bool],
        has_acknowledged: Callable[[int], bool],
    ) -> None:
        self._subscribe = subscribe
        self._is_active = is_active
        self._has_acknowledged = has_acknowledged
        self._chunks: queue.Queue[_Chunk] = queue.Queue()
        self._rest: dict[int, _Chunk] = {}
        self._parts: dict[int, _Part] = {}
        self._closed_by_pulsar: dict[int, float] = {}
        """When to join these partitions again."""
        self.closed = False
        try:
            for partition in range(partitions):
                self._join_first(partition, is_last=partition in (1, partitions - 1))
        except BaseException:
            self.close()
            raise

    def _join_first(self, partition: int, *, is_last: bool) -> None:
        """One partition that cannot be had does not keep the others waiting.

        Where the first two cannot be had, none can, and each would take its time to say so.
        """
        try:
            self._parts[partition] = self._open(partition)
        except AccessDenied:
            raise
        except LogUnavailable as error:
            if is_last and not self._parts:
                raise
            self._put_off(partition, error)

    def _put_off(self, partition: int, error: LogUnavailable) -> None:
        self._closed_by_pulsar[partition] = time.monotonic() + _JOIN_AGAIN_SECONDS
        _logger.warning("partition cannot be joined", partition=partition, why=str(error))

    def _open(self, partition: int) -> _Part:
        return _Part(partition, self._subscribe(partition), self._chunks)

    def receive(self, *, messages_max: int, timeout_seconds: float) -> Batch | None:
        """Wait for messages of any partition.

        Subscribes again where Pulsar has closed a partition's consumer.
        """
        self._join_again()
        chunk = self._next_chunk(timeout_seconds)
        if chunk is None:
            return None
        partition = chunk.part.partition
        now, rest = chunk.messages[:messages_max], chunk.messages[messages_max:]
        if rest:
            self._rest[partition] = _Chunk(chunk.part, rest)
        chunk.part.given.extend((message.id, own) for message, own in now)
        return Batch(partition, [message for message, _ in now], chunk.may_lack)

    def _next_chunk(self, timeout_seconds: float) -> _Chunk | None:
        """The next chunk of a part that is still open; what was prefetched by a closed one is given again."""
        if self._rest:
            return self._rest.pop(next(iter(self._rest)))
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                left = deadline - time.monotonic()
                chunk = self._chunks.get(left > 0, max(left, 0.0))
            except queue.Empty:
                return None
            chunk.part.taken.release()
            if self._parts.get(chunk.part.partition) is not chunk.part:
                continue
            if not chunk.messages:
                self.leave(chunk.part.partition)
                self._closed_by_pulsar[chunk.part.partition] = time.monotonic()
            return chunk

    def _join_again(self) -> None:
        """One partition's topic may be gone, or not ours any more: the others go on, so that it is one at a time."""
        due = [partition for partition, at in self._closed_by_pulsar.items() if at <= time.monotonic()]
        for partition in due[:1]:
            try:
                self.release(partition)
            except LogUnavailable as error:
                self._put_off(partition, error)

    def is_granted(self, partition: int) -> bool:
        """Ask the broker."""
        return partition in self._parts and self._is_active(partition)

    def has_acknowledged(self, partition: int) -> bool:
        """Ask the broker."""
        return self._has_acknowledged(partition)

    def acknowledge(self, partition: int, through: MessageId) -> None:
        """Acknowledge cumulatively."""
        part = self._parts.get(partition)
        if part is not None:
            part.acknowledge(through)

    def release(self, partition: int) -> None:
        """Close the partition's consumer and subscribe again: what was prefetched comes again."""
        self.leave(partition)
        self._parts[partition] = self._open(partition)

    def leave(self, partition: int) -> None:
        """Close the partition's consumer."""
        self._closed_by_pulsar.pop(partition, None)
        self._rest.pop(partition, None)
        part = self._parts.pop(partition, None)
        if part is not None:
            part.close()

    def close(self) -> None:
        """Leave all partitions."""
        self.closed = True
        for part in self._parts.values():
            part.closed = True  # all threads end while the first consumer is being closed
        for partition in list(self._parts):
            self.leave(partition)
