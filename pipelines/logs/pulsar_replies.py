"""Replies: to inboxes that nobody stores, by a thread that nobody waits for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import pulsar

from .pulsar_messages import translated

INBOX_QUEUE: Final = 20_000
"""A burst of replies beyond the receiver's queue is lost: 5,000 replies into a queue of 1,000 came to about 1,100."""

_WAITING_MAX: Final = 10_000
"""Chunks of replies that wait for the broker; beyond, they are lost, and whoever asked asks again."""

_PRODUCERS_MAX: Final = 1000
"""Clients come and go: the one that was not replied to for the longest is closed first."""

_CLOSE_SECONDS_MAX: Final = 2.0


class PulsarInbox:
    """A topic without storage, for the replies to one client."""

    def __init__(self, address: str, consumer: Any) -> None:
        self.address = address
        self._consumer = consumer
        self.closed = False

    def receive(self, *, timeout_seconds: float) -> Sequence[bytes]:
        """Return the replies that are there. Raises LogUnavailable if the inbox is closed."""
        replies: list[bytes] = []
        wait_ms = max(1, int(timeout_seconds * 1000))
        with contextlib.suppress(pulsar.Timeout):
            while len(replies) < INBOX_QUEUE:
                try:
                    message = self._consumer.receive(wait_ms)
                except pulsar.Timeout:
                    raise
                except pulsar.PulsarException:
                    if replies:
                        break
                    with translated("receiving replies"):
                        raise
                replies.append(message.data())
                self._consumer.acknowledge(message)
                wait_ms = 0
        return replies

    def close(self) -> None:
        """Let go of the inbox and what is still in it."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self._consumer.close()


class Replier:
    """Sends replies from a thread of its own: a new client's producer, or a frozen broker, holds no worker up."""

    def __init__(self, open_producer: Callable[[str], Any]) -> None:
        self._open_producer = open_producer
        self._producers: OrderedDict[str, Any] = OrderedDict()
        self._waiting: queue.Queue[tuple[str, Sequence[bytes]] | None] = queue.Queue(_WAITING_MAX)
        self._thread: threading.Thread | None = None

    def put(self, address: str, payloads: Sequence[bytes]) -> None:
        """Have the replies sent, unless too many wait already."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="magnetar-replier", daemon=True)
            self._thread.start()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait((address, payloads))

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            address, payloads = item
            try:
                self._send(address, payloads)
            except pulsar.PulsarException:
                self._drop(address)

    def _send(self, address: str, payloads: Sequence[bytes]) -> None:
        producer = self._producers.get(address)
        if producer is None:
            if len(self._producers) >= _PRODUCERS_MAX:
                self._drop(next(iter(self._producers)))
            producer = self._producers[address] = self._open_producer(address)
        self._producers.move_to_end(address)
        for payload in payloads:
            producer.send_async(payload, None)
        producer.flush()

    def _drop(self, address: str) -> None:
        producer = self._producers.pop(address, None)
        if producer is not None:
            with contextlib.suppress(pulsar.PulsarException):
                producer.close()

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_CLOSE_SECONDS_MAX)
        self._thread.join(_CLOSE_SECONDS_MAX)
