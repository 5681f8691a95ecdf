"""Sharing out the partitions of an event topic among projectors: Failover consumers that read nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import pulsar

PROJECTORS: Final = "projectors"
"""What the subscription is called, or begins with. Nobody reads through it: it says who is active."""

ACKNOWLEDGE_SECONDS: Final = 60.0
"""How often it is moved to the end, so that nothing counts as waiting there."""


class PulsarShare:
    """One projector's part."""

    def __init__(
        self,
        partitions: int,
        subscribe: Callable[[int], Any],
        active: Callable[[], Mapping[int, str]],
        name: str,
        *,
        is_passing: bool = False,
    ) -> None:
        """With `is_passing`, the last one that leaves a partition takes the subscription with it."""
        self._is_passing = is_passing
        self._active = active
        self._name = name
        self._consumers: list[Any] = []
        self._acknowledge_at = 0.0
        self.closed = False
        try:
            for partition in range(partitions):
                self._consumers.append(subscribe(partition))
        except BaseException:
            self.close()
            raise

    def mine(self) -> frozenset[int]:
        """Ask the broker: one call for all partitions."""
        found = frozenset(partition for partition, name in self._active().items() if name == self._name)
        if time.monotonic() >= self._acknowledge_at:
            self._acknowledge_at = time.monotonic() + ACKNOWLEDGE_SECONDS
            for partition in found:
                consumer = self._consumers[partition]
                with contextlib.suppress(pulsar.PulsarException):
                    consumer.acknowledge_cumulative(consumer.get_last_message_id())
        return found

    def close(self) -> None:
        """Close the consumers: the broker gives their partitions to others."""
        self.closed = True
        for consumer in self._consumers:
            if self._is_passing:
                with contextlib.suppress(pulsar.PulsarException):  # the broker refuses it while others are there
                    consumer.unsubscribe()
            with contextlib.suppress(pulsar.PulsarException):
                consumer.close()
        self._consumers.clear()
