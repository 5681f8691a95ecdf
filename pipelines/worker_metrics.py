"""What a worker counts and measures, for Prometheus: one sample of each per aggregate, and per partition where said."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import Final

from magnetar.aggregates import Decision
from prometheus_client import Counter, Gauge, Histogram

from .clock import Clock

_LABELS: Final = ("context", "aggregate")
_EVENTS, _OUTCOME = attrgetter("events"), attrgetter("outcome")
"""A chunk has a thousand decisions: as loops of Python's, these two took three times as long."""

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RECOVERY_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_COMMANDS_IN_A_CHUNK: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

COMMANDS: Final = Counter(
    "magnetar_commands_total",
    "Commands by outcome: accepted, nothing, rejected, parked; repeated and redelivered were decided before.",
    (*_LABELS, "outcome"),
)
PARKED: Final = Counter("magnetar_parked_total", "Commands that were parked, by reason.", (*_LABELS, "reason"))
EVENTS: Final = Counter("magnetar_events_total", "Events emitted.", _LABELS)
CHUNK: Final = Histogram(
    "magnetar_chunk_commands", "Commands decided between two flushes.", _LABELS, buckets=_COMMANDS_IN_A_CHUNK
)
DECIDE: Final = Histogram(
    "magnetar_decide_seconds", "Decoding, deciding and encoding one chunk.", _LABELS, buckets=_SECONDS
)
FLUSH: Final = Histogram(
    "magnetar_flush_seconds", "Until the log has confirmed all commits of a chunk.", _LABELS, buckets=_SECONDS
)
AGE: Final = Gauge(
    "magnetar_command_age_seconds",
    "How old the oldest command is that the partition's owner has in hand and has no stored commit of; 0 if none.",
    (*_LABELS, "partition"),
)
NUMBER: Final = Gauge(
    "magnetar_commit_number", "The number of the partition's last commit, by its owner.", (*_LABELS, "partition")
)
OWNED: Final = Gauge("magnetar_partitions_owned", "Partitions that this worker owns.", _LABELS)
REFUSED: Final = Gauge(
    "magnetar_partitions_refused", "Partitions that this worker's code cannot fold, and leaves to others.", _LABELS
)
RECOVERY: Final = Histogram(
    "magnetar_recovery_seconds", "From the fence to the first decision of an ownership.", _LABELS,
    buckets=_RECOVERY_SECONDS,
)  # fmt: skip
LOST: Final = Counter(
    "magnetar_partitions_lost_total", "Ownerships that ended: OwnershipLost is a fence.", (*_LABELS, "reason")
)
CHECKPOINT: Final = Gauge(
    "magnetar_checkpoint_timestamp_seconds", "When this owner last finished a checkpoint.", (*_LABELS, "partition")
)


class WorkerMetrics:
    """The samples of one aggregate in this process."""

    def __init__(self, context: str, aggregate: str, clock: Clock) -> None:
        self._labels = (context, aggregate)
        self._clock = clock
        self._in_hand: dict[int, int | None] = {}
        """By partition, when the oldest command in hand was published, in milliseconds since 1970."""
        self._events = EVENTS.labels(*self._labels)
        self._chunk = CHUNK.labels(*self._labels)
        self._decide = DECIDE.labels(*self._labels)
        self._flush = FLUSH.labels(*self._labels)
        self._owned = OWNED.labels(*self._labels)
        self._refused = REFUSED.labels(*self._labels)
        self._recovery = RECOVERY.labels(*self._labels)

    def decided(self, decisions: Sequence[Decision], decide_seconds: float, flush_seconds: float) -> None:
        """A chunk whose commits are stored."""
        self._chunk.observe(len(decisions))
        self._decide.observe(decide_seconds)
        self._flush.observe(flush_seconds)
        self._events.inc(sum(map(_EVENTS, decisions)))
        outcomes = Tally(map(_OUTCOME, decisions))
        for outcome, count in outcomes.items():
            COMMANDS.labels(*self._labels, outcome).inc(count)
        if "parked" in outcomes:
            for reason, count in Tally(decision.reason for decision in decisions if decision.reason).items():
                PARKED.labels(*self._labels, reason).inc(count)

    def took_in_hand(self, partition: int, published_at_ms: int) -> None:
        """A chunk has come; its oldest command ages until `reached`, however long that takes."""
        if partition not in self._in_hand:
            AGE.labels(*self._labels, partition).set_function(partial(self._age_seconds, partition))
        self._in_hand[partition] = published_at_ms

    def _age_seconds(self, partition: int) -> float:
        at_ms = self._in_hand.get(partition)
        return 0.0 if at_ms is None else max(0.0, (self._clock.now_ms() - at_ms) / 1000)

    def reached(self, partition: int, number: int) -> None:
        """Where a partition is after a chunk, whose commits are stored."""
        self._in_hand[partition] = None
        NUMBER.labels(*self._labels, partition).set(number)

    def checkpoint(self, partition: int, at_seconds: float) -> None:
        """A round of a partition's checkpoint is whole."""
        CHECKPOINT.labels(*self._labels, partition).set(at_seconds)

    def taken(self, owned: int, seconds: float) -> None:
        """A partition was taken; `owned` are owned now."""
        self._owned.set(owned)
        self._recovery.observe(seconds)

    def lost(self, partition: int, owned: int, reason: str) -> None:
        """A partition is another worker's, who says where it is."""
        LOST.labels(*self._labels, reason).inc()
        self.gone(partition, owned)

    def refused(self, partition: int, owned: int, refused: int) -> None:
        """A partition cannot be folded here."""
        self._refused.set(refused)
        self.gone(partition, owned)

    def gone(self, partition: int, owned: int) -> None:
        """A partition was given up: whoever takes it says where it is."""
        self._owned.set(owned)
        self._in_hand.pop(partition, None)
        for gauge in (AGE, NUMBER, CHECKPOINT):
            gauge.remove(*self._labels, partition)
