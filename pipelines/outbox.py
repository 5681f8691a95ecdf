"""The outbox: commands that are sent at the same time go onto their partition together, in one transaction.

On the embedded log each transaction waits for the disk, and on Pulsar for the broker: one by one, a thousand commands
would wait a thousand times.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from magnetar.schemas import MagnetarError, OutcomeUnknown

from .clock import Clock
from .log import Entry, Publisher
from .receipt import unknown

THREADS_MAX: Final = 32
"""Partitions that are written at once. One that does not answer holds a thread, and the others go on."""

TOGETHER_MAX: Final = 1000
BYTES_TOGETHER_MAX: Final = 16 * 1024 * 1024
"""More in one transaction would be no faster, and later for the first of them."""

_SECONDS_MIN: Final = 1.0
"""What waited long for its turn is tried all the same, and not at the first sight of another writer given up."""


class Parcel(NamedTuple):
    """A message, until when it may be written (monotonic seconds), and what tells who waits that it is durable."""

    entry: Entry
    command_id: str
    deadline: float
    stored: Future[None]


class Outbox:
    """Writes what it is given, per partition in the order given. Safe to share between threads; `put` does not wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: dict[tuple[Publisher, int], deque[Parcel]] = {}
        """What waits for each partition that a thread is at; one thread at a time keeps the order."""
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="magnetar-outbox")
        self._closed = False

    def put(self, publisher: Publisher, partition: int, parcel: Parcel) -> None:
        """Take a parcel. Its future ends when it is durable, or with the error. Cancelled in time, it stays here."""
        with self._lock:
            if not self._closed:
                lane = self._lanes.get((publisher, partition))
                if lane is not None:
                    lane.append(parcel)
                else:
                    self._lanes[publisher, partition] = deque([parcel])
                    self._threads.submit(self._write_all, publisher, partition)
                return
        _drop(parcel)

    def close(self) -> None:
        """Finish the transactions under way, and drop what waits behind them."""
        with self._lock:
            self._closed = True
            waiting = [parcel for lane in self._lanes.values() for parcel in lane]
            for lane in self._lanes.values():
                lane.clear()
        for parcel in waiting:
            _drop(parcel)
        self._threads.shutdown(wait=True)

    def _write_all(self, publisher: Publisher, partition: int) -> None:
        while (parcels := self._next(publisher, partition)) is not None:
            wanted = [parcel for parcel in parcels if parcel.stored.set_running_or_notify_cancel()]
            if wanted:
                self._write(publisher, partition, wanted)

    def _next(self, publisher: Publisher, partition: int) -> Sequence[Parcel] | None:
        """What is written together next; None, and the lane is gone, if nothing waits."""
        with self._lock:
            lane = self._lanes[publisher, partition]
            if not lane:
                del self._lanes[publisher, partition]
                return None
            parcels = [lane.popleft()]
            size = len(parcels[0].entry.payload)
            while lane and len(parcels) < TOGETHER_MAX and size < BYTES_TOGETHER_MAX:
                parcels.append(lane.popleft())
                size += len(parcels[-1].entry.payload)
            return parcels

    def _write(self, publisher: Publisher, partition: int, parcels: Sequence[Parcel]) -> None:
        seconds = max(_SECONDS_MIN, max(parcel.deadline for parcel in parcels) - self._clock.monotonic())
        try:
            publisher.publish(partition, [parcel.entry for parcel in parcels], timeout_seconds=seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            for parcel in parcels:
                parcel.stored.set_exception(_explained(parcel.command_id, error))
        else:
            for parcel in parcels:
                parcel.stored.set_result(None)


def _drop(parcel: Parcel) -> None:
    if parcel.stored.set_running_or_notify_cancel():
        parcel.stored.set_exception(unknown(parcel.command_id, "the client was closed"))


def _explained(command_id: str, error: Exception) -> Exception:
    """The log's error for one of those who wait, with the id that is needed to repeat the command.

    Each gets its own: raised in many threads, a shared one would collect all their tracebacks.
    """
    if isinstance(error, OutcomeUnknown):
        own: Exception = unknown(command_id, error.what.rstrip("."))
    elif isinstance(error, MagnetarError):
        own = type(error)(error.what, cure=error.cure, **{**error.fields, "command_id": command_id})
    else:
        own = unknown(command_id, repr(error))
    own.__cause__ = error
    return own
