"""The log port: what Magnetar needs of a log, and nothing else. Adapters: SQLite and Apache Pulsar.

Every adapter, and the log of the simulation, passes the same contract suite (`tests/contract`). All calls block, and
each says how long at most. No object of a log is shared by threads unless its docstring says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from magnetar.schemas import MessageId, Topic


class Message(NamedTuple):
    """One stored message of one partition."""

    id: MessageId
    key: str
    payload: bytes
    published_at_ms: int
    """Milliseconds since 1970 on the publisher's clock."""
    schema: int
    """The number that the log gave to the schema the payload was written with; see `Log.schema`."""


class Run(NamedTuple):
    """Messages that stand one behind the other and were written with one schema: their bytes alone."""

    payloads: list[bytes]
    schema: int
    last: MessageId
    """The place of the last of them."""


class Batch(NamedTuple):
    """Commands of one partition, in its order, given to the worker that the log names as active."""

    partition: int
    messages: Sequence[Message]
    may_lack: bool = False
    """Whether messages that stand before the first of these may have been given to nobody: a worker looks for them."""


class Entry(NamedTuple):
    """A message to be stored: its key, which is the aggregate's id, and its bytes."""

    key: str
    payload: bytes


class TopicDescription(NamedTuple):
    """What the log knows of a topic."""

    partitions: int
    incarnation: str
    """A UUID given at creation: a topic deleted and created again under its old name has another."""


class Backlog(NamedTuple):
    """How far the workers are with one partition of a command topic."""

    active: str | None
    """The name of the consumer that the log names as active, if there is one."""
    acknowledged: MessageId | None
    """The last message that was acknowledged, with all before it."""
    waiting: int
    """How many messages stand behind that one. A log that counts batches estimates what is beyond a thousand."""


class Reached(NamedTuple):
    """How far a partition of a command topic is written, and how far it is decided."""

    end: MessageId | None
    """The last message that is stored."""
    acknowledged: MessageId | None
    """The last message that was acknowledged, with all before it."""


class Ownership(NamedTuple):
    """Who may append to a partition of an event topic."""

    name: str
    """The name that the appender was fenced in under."""
    since_ms: int
    """Milliseconds since 1970."""


class Appending(Protocol):
    """Entries on their way into the log."""

    @property
    def is_over(self) -> bool:
        """Whether `wait` does not have to wait any more."""
        ...

    def wait(self) -> MessageId:
        """The id of the last entry, when *all* of them are durable. To be called once. Raises as `Appender.append`."""
        ...


class Stored(NamedTuple):
    """Entries that are durable already: what an adapter begins that knows no waiting."""

    last: MessageId
    is_over: bool = True

    def wait(self) -> MessageId:
        """The id of the last entry."""
        return self.last


class Appender(Protocol):
    """The one writer of one partition of an event topic, until somebody else fences it."""

    def begin(self, entries: Sequence[Entry], *, timeout_seconds: float) -> Appending:
        """Hand the entries over, to be stored in their order: `append` without the waiting.

        One after the other: wait for one call's entries before the next is made. Raises as `append` what shows at once.
        """
        ...

    def append(self, entries: Sequence[Entry], *, timeout_seconds: float) -> MessageId:
        """Store the entries in their order.

        Returns the id of the last when *all* of them are durable. Entries of one call may be stored without the ones
        behind them, never the other way round, unless an error is raised.

        Raises OwnershipLost if another appender has been fenced in: nothing more of this one will be stored.
        Raises OutcomeUnknown if not everything was confirmed in time: any of the entries may be stored, now or later.
        After either, the appender is of no more use: close it, and take the partition anew.
        Raises MessageRefused if an entry is larger than `Log.message_bytes_max`: nothing was stored.
        """
        ...

    def close(self) -> None:
        """Let go. Never raises; waits for nothing that was not confirmed."""
        ...


class Publisher(Protocol):
    """Anybody's way to put commands on a command topic. Safe to share between threads."""

    def publish(self, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        """Store the entries in their order; returns when all are durable.

        Raises OutcomeUnknown if not everything was confirmed in time (publishing again under the same command ids is
        safe), and MessageRefused if an entry is larger than `Log.message_bytes_max` (nothing was stored).
        """
        ...

    def close(self) -> None:
        """Let go. Never raises."""
        ...


class Consumer(Protocol):
    """One worker's part in sharing out the partitions of a command topic.

    The log spreads the partitions over the live consumers of the topic and gives each partition's messages, in order,
    to one of them at a time: the *active* one. That is liveness and balance; safety is the fence of the event topic.
    A frozen or cut-off consumer goes on believing that it is active.
    """

    def receive(self, *, messages_max: int, timeout_seconds: float) -> Batch | None:
        """Wait for messages of any partition that this consumer is active for.

        Returns at once when some are there, None when none came in time. A batch without messages says that the log has
        closed this consumer's part in the partition: whoever had the partition has it no more. The consumer takes part
        again by itself, as soon as it may. A message is given once, until it is given again because its partition was
        released, or because another consumer became active.
        """
        ...

    def is_granted(self, partition: int) -> bool:
        """Ask the log, not the memory, whether it names this consumer as the active one of the partition."""
        ...

    def has_acknowledged(self, partition: int) -> bool:
        """Ask the log whether anybody has ever acknowledged a message of the partition."""
        ...

    def acknowledge(self, partition: int, through: MessageId) -> None:
        """Say that this message and all before it need not be given to anybody again. Best effort; never raises."""
        ...

    def release(self, partition: int) -> None:
        """Close this consumer's part in the partition, if it has one, and take part again.

        What was received or prefetched but not acknowledged is given again, to this consumer or another. Dropping
        messages without releasing would lose them: the log thinks that they were delivered.

        Raises LogUnavailable if the log does not let this consumer take part: it is out of the partition then.
        """
        ...

    def leave(self, partition: int) -> None:
        """Close this consumer's part in the partition, so that another one can take it, until `release`."""
        ...

    def close(self) -> None:
        """Leave all partitions. Never raises."""
        ...


class Reader(Protocol):
    """Reads one partition of a topic from a place on, following its end."""

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages, at once when some are there; nothing when none came in time."""
        ...

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        """Return the payloads of the next messages, as far as they were written with one schema.

        For who reads millions: it costs a third of `read`. None when no message came in time.
        """
        ...

    def close(self) -> None:
        """Let go. Never raises."""
        ...


class Inbox(Protocol):
    """Where the replies to one client's asks arrive. Replies are a convenience: they can be lost, commits cannot."""

    address: str
    """What a command's `reply_to` says."""

    def receive(self, *, timeout_seconds: float) -> Sequence[bytes]:
        """Return the replies that are there, or nothing when none came in time."""
        ...

    def close(self) -> None:
        """Let go of the inbox and what is still in it. Never raises."""
        ...


class Log(Protocol):
    """A log: partitioned topics with fenced writers, grants and readers."""

    message_bytes_max: int
    """How large a payload may be."""

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """Create the topic if it is missing and register `schema`, the JSON text of an Avro schema. Repeatable.

        Raises SettingsError if the topic exists with another number of partitions, and for a schema that cannot follow
        those that are registered (`magnetar.schemas.evolution`).
        """
        ...

    def describe(self, topic: Topic) -> TopicDescription:
        """What the log knows of the topic. Raises LogUnavailable if it does not exist."""
        ...

    def schema(self, topic: Topic, number: int) -> str:
        """The JSON text of the schema that the log knows under this number. Raises LogUnavailable if it knows none."""
        ...

    def publisher(self, topic: Topic, *, schema: str) -> Publisher:
        """A way to publish messages written with this schema (registered already) to the topic."""
        ...

    def consumer(self, topic: Topic, *, name: str) -> Consumer:
        """Take part in sharing out the topic's partitions, under a name that no other live consumer has."""
        ...

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> Appender:
        """Become the one writer of the partition, at once, whoever was it before.

        When this returns, no *later* append of an older appender succeeds. What an older one sent before may still
        land, until the first message of the new one stands in the log: write a claim, and read up to it.
        """
        ...

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> Reader:
        """Read the partition behind this message, or from its start."""
        ...

    def end(self, topic: Topic, partition: int) -> MessageId | None:
        """The last message of the partition, None if it never had one. What is under way may stand behind it."""
        ...

    def trim(self, topic: Topic, partition: int, *, through: MessageId) -> None:
        """Let the log drop this message and all before it, at once or later. Only for topics of checkpoints."""
        ...

    def inbox(self) -> Inbox:
        """Open an inbox for replies."""
        ...

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        """Put replies into an inbox. Best effort: a client that is gone is no error; never raises."""
        ...

    def close(self) -> None:
        """Close everything that was opened through this log. Never raises."""
        ...


class Share(Protocol):
    """One projector's part in sharing out the partitions of an event topic."""

    def mine(self) -> frozenset[int]:
        """The partitions that the log gives to this one now, not from memory. A sign of life where the log needs one.

        Raises LogUnavailable if the log does not say.
        """
        ...

    def close(self) -> None:
        """Leave all partitions. Never raises."""
        ...


@runtime_checkable
class SharesOut(Protocol):
    """A log that spreads the partitions of an event topic over the live projectors, each to one at a time.

    That is liveness and balance; safety is the lease on the table. A frozen one goes on believing that it has them.
    """

    def share(self, topic: Topic, *, name: str, group: str = "") -> Share:
        """Take part, under a name that no other live projector has. Each group has all partitions among itself.

        Raises LogUnavailable if the topic does not exist.
        """
        ...


@runtime_checkable
class KnowsBacklog(Protocol):
    """A log that can say how far its workers are, to whoever asks. For people who look, never for deciding."""

    def backlog(self, topic: Topic) -> Sequence[Backlog]:
        """Each partition's backlog, in their order. Raises LogUnavailable if the topic does not exist."""
        ...

    def owners(self, topic: Topic) -> Sequence[Ownership | None]:
        """Each partition's last owner, in their order; None where there is none. Raises LogUnavailable likewise."""
        ...


@runtime_checkable
class LosesReplies(Protocol):
    """A log whose inboxes are not stored: what comes while a client is cut off from it is gone."""

    def reached(self, topic: Topic) -> Sequence[Reached]:
        """By partition of a command topic, each as of one moment. Raises LogUnavailable and AccessDenied."""
        ...
