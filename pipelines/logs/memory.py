"""The log in memory, for simulations: deterministic, with the faults of a real broker on levers."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from magnetar.schemas import (
    LogUnavailable,
    MessageId,
    MessageRefused,
    OutcomeUnknown,
    OwnershipLost,
    SettingsError,
    Topic,
)

from ..clock import Clock
from ..log import Batch, Entry, Message, TopicDescription

MESSAGE_BYTES_MAX: Final = 5 * 1024 * 1024 - 64 * 1024


class Faults:
    """What can go wrong, asked at each turn; this one says no to everything. A simulation overrides it."""

    def confirmation_is_lost(self) -> bool:
        """Everything was stored, and the writer is not told: OutcomeUnknown."""
        return False

    def connection_breaks(self) -> bool:
        """Between two entries: the rest is on its way, lands later or never, and the writer is told OutcomeUnknown."""
        return False

    def lands_late(self) -> bool:
        """An entry of a fenced writer lands all the same, because no newer one has written yet."""
        return False

    def is_sent_twice(self) -> bool:
        """A reconnect stores the entries of one append again."""
        return False

    def acknowledgement_is_lost(self) -> bool:
        """An acknowledgement does not reach the broker."""
        return False

    def reconnects(self) -> bool:
        """The consumer's connection broke: what is not acknowledged is given again."""
        return False

    def grant_is_wrong(self) -> bool:
        """A consumer that is not the active one believes that it is, and is told so."""
        return False


class _Partition:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.owner = 0
        self.newest_writer = 0
        self.lock = threading.Lock()
        self.on_their_way: list[tuple[int, Entry, int]] = []
        self.acknowledged = 0

    def store(self, entry: Entry, at_ms: int, schema: int) -> MessageId:
        id = MessageId(len(self.messages) + 1)
        self.messages.append(Message(id, entry.key, entry.payload, at_ms, schema))
        return id


class _Topic:
    def __init__(self, partitions: int) -> None:
        self.incarnation = str(uuid.uuid4())
        self.partitions = [_Partition() for _ in range(partitions)]
        self.schemas: list[str] = []
        self.consumers: dict[str, MemoryConsumer] = {}

    def active(self, partition: int) -> str | None:
        taking_part = sorted(name for name, consumer in self.consumers.items() if partition in consumer.parts)
        return taking_part[partition % len(taking_part)] if taking_part else None


class MemoryBroker:
    """What several MemoryLogs share, as processes share a broker."""

    def __init__(self) -> None:
        self.topics: dict[Topic, _Topic] = {}
        self.inboxes: dict[str, list[bytes]] = {}
        self.tokens = itertools.count(1)

    def topic(self, topic: Topic) -> _Topic:
        """The topic. Raises LogUnavailable if it does not exist."""
        if topic not in self.topics:
            raise LogUnavailable(f"The topic {topic} does not exist.")
        return self.topics[topic]

    def land(self, topic: Topic, partition: int, at_ms: int) -> bool:
        """Let the next entry that is on its way land, unless a newer writer than its own has written."""
        found = self.topic(topic).partitions[partition]
        if not found.on_their_way:
            return False
        token, entry, schema = found.on_their_way.pop(0)
        if token >= found.newest_writer:
            found.store(entry, at_ms, schema)
        return True


class MemoryLog:
    """One process's connection to a MemoryBroker. `hook` is called before each effect, and may switch or raise."""

    def __init__(
        self,
        broker: MemoryBroker,
        clock: Clock,
        *,
        hook: Callable[[str], None] | None = None,
        faults: Faults | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self.message_bytes_max = message_bytes_max
        self.broker = broker
        self.clock = clock
        self.hook = hook or (lambda _: None)
        self.faults = faults or Faults()
        self._consumers: list[MemoryConsumer] = []

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """Create the topic if it is missing, and register the schema."""
        found = self.broker.topics.setdefault(topic, _Topic(partitions))
        if len(found.partitions) != partitions:
            raise SettingsError(f"{topic} has {len(found.partitions)} partitions, not {partitions}.")
        if schema not in found.schemas:
            found.schemas.append(schema)

    def describe(self, topic: Topic) -> TopicDescription:
        """What the broker knows of the topic."""
        found = self.broker.topic(topic)
        return TopicDescription(len(found.partitions), found.incarnation)

    def schema(self, topic: Topic, number: int) -> str:
        """The schema's text under this number."""
        schemas = self.broker.topic(topic).schemas
        if not 1 <= number <= len(schemas):
            raise LogUnavailable(f"{topic} has no schema number {number}.")
        return schemas[number - 1]

    def number_of(self, topic: Topic, schema: str) -> int:
        """The number of a registered schema."""
        schemas = self.broker.topic(topic).schemas
        if schema not in schemas:
            raise SettingsError(f"The schema for {topic} is not registered.", cure="Provision the topic first.")
        return schemas.index(schema) + 1

    def check_sizes(self, entries: Sequence[Entry]) -> None:
        """Raise MessageRefused if one of the entries is over the limit."""
        if any(len(entry.payload) > self.message_bytes_max for entry in entries):
            raise MessageRefused(f"A message was not stored: the limit is {self.message_bytes_max:,} bytes.")

    def publisher(self, topic: Topic, *, schema: str) -> MemoryPublisher:
        """A way to publish to the topic."""
        return MemoryPublisher(self, topic, self.number_of(topic, schema))

    def consumer(self, topic: Topic, *, name: str) -> MemoryConsumer:
        """Take part in sharing out the topic's partitions."""
        consumer = MemoryConsumer(self, self.broker.topic(topic), name)
        self._consumers.append(consumer)
        return consumer

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> MemoryAppender:
        """Become the owner at once."""
        number = self.number_of(topic, schema)
        self.hook(f"fence by {name}")
        found = self.broker.topic(topic).partitions[partition]
        with found.lock:
            found.owner = token = next(self.broker.tokens)
        return MemoryAppender(self, found, token, number)

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> MemoryReader:
        """Read the partition behind this message, or from its start."""
        return MemoryReader(self, self.broker.topic(topic).partitions[partition], 0 if after is None else after.ledger)

    def inbox(self) -> MemoryInbox:
        """Open an inbox for replies."""
        return MemoryInbox(self)

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        """Put replies into an inbox."""
        self.hook("reply")
        if address in self.broker.inboxes:
            self.broker.inboxes[address] += payloads

    def close(self) -> None:
        """The broker notices that the connection is gone."""
        for consumer in self._consumers:
            consumer.close()


class MemoryPublisher:
    """Puts commands on a topic."""

    def __init__(self, log: MemoryLog, topic: Topic, schema: int) -> None:
        self._log = log
        self._topic = topic
        self._schema = schema

    def publish(self, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:  # noqa: ARG002
        """Store the entries."""
        self._log.check_sizes(entries)
        self._log.hook("publish")
        found = self._log.broker.topic(self._topic).partitions[partition]
        for entry in entries:
            found.store(entry, self._log.clock.now_ms(), self._schema)

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryAppender:
    """A writer with its token."""

    def __init__(self, log: MemoryLog, partition: _Partition, token: int, schema: int) -> None:
        self._log = log
        self._partition = partition
        self._token = token
        self._schema = schema

    def append(self, entries: Sequence[Entry], *, timeout_seconds: float) -> MessageId:  # noqa: ARG002
        """Store one entry after the other; a crash, a fence or a broken connection can come between any two."""
        self._log.check_sizes(entries)
        last = MessageId(0)
        for index, entry in enumerate(entries):
            self._log.hook("append")
            last = self._store(entry)
            if self._log.faults.connection_breaks():
                rest = entries[index + 1 :]
                self._partition.on_their_way += [(self._token, each, self._schema) for each in rest]
                raise OutcomeUnknown("The connection broke.")
        if self._log.faults.is_sent_twice():
            for entry in entries:
                last = self._store(entry)
        self._log.hook("confirm")
        if self._log.faults.confirmation_is_lost():
            raise OutcomeUnknown("The confirmation did not come.")
        return last

    def _store(self, entry: Entry) -> MessageId:
        partition = self._partition
        with partition.lock:
            is_late = partition.owner != self._token
            if is_late and (self._token < partition.newest_writer or not self._log.faults.lands_late()):
                raise OwnershipLost("Another writer has taken the partition over.")
            partition.newest_writer = self._token
            return partition.store(entry, self._log.clock.now_ms(), self._schema)

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryConsumer:
    """One worker's part in a topic."""

    def __init__(self, log: MemoryLog, topic: _Topic, name: str) -> None:
        if name in topic.consumers:
            raise SettingsError(f"A worker called {name!r} is running already.")
        self._log = log
        self._topic = topic
        self._name = name
        self._position: dict[int, int] = {}
        self._turn = 0
        self.parts = set(range(len(topic.partitions)))
        topic.consumers[name] = self

    def receive(self, *, messages_max: int, timeout_seconds: float) -> Batch | None:
        """Give the next messages of a partition that this consumer is active for; partitions take turns."""
        self._log.hook("receive")
        if self._log.faults.reconnects():
            self._position.clear()
        count = len(self._topic.partitions)
        for step in range(count):
            partition = (self._turn + step) % count
            if partition in self.parts and self._believes(partition):
                found = self._topic.partitions[partition]
                after = self._position.setdefault(partition, found.acknowledged)
                if messages := found.messages[after : after + messages_max]:
                    self._position[partition] = messages[-1].id.ledger
                    self._turn = partition + 1
                    return Batch(partition, messages)
            elif partition in self._position:
                del self._position[partition]
        self._log.clock.sleep(timeout_seconds)
        return None

    def _believes(self, partition: int) -> bool:
        return self._topic.active(partition) == self._name or self._log.faults.grant_is_wrong()

    def is_granted(self, partition: int) -> bool:
        """Ask the broker, which can be wrong."""
        self._log.hook("is granted")
        return partition in self.parts and self._believes(partition)

    def acknowledge(self, partition: int, through: MessageId) -> None:
        """Remember how far the partition is done."""
        self._log.hook("acknowledge")
        if not self._log.faults.acknowledgement_is_lost():
            found = self._topic.partitions[partition]
            found.acknowledged = max(found.acknowledged, through.ledger)

    def release(self, partition: int) -> None:
        """Begin again behind what is acknowledged."""
        self._position.pop(partition, None)
        self.parts.add(partition)

    def leave(self, partition: int) -> None:
        """Take no part in the partition."""
        self._position.pop(partition, None)
        self.parts.discard(partition)

    def close(self) -> None:
        """Leave all partitions."""
        if self._topic.consumers.get(self._name) is self:
            del self._topic.consumers[self._name]


class MemoryReader:
    """Follows a partition."""

    def __init__(self, log: MemoryLog, partition: _Partition, after: int) -> None:
        self._log = log
        self._partition = partition
        self._after = after

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages."""
        self._log.hook("read")
        messages = self._partition.messages[self._after : self._after + messages_max]
        if not messages:
            self._log.clock.sleep(timeout_seconds)
        self._after += len(messages)
        return messages

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryInbox:
    """Replies to one client."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.address = f"inbox-{next(log.broker.tokens)}"
        log.broker.inboxes[self.address] = []

    def receive(self, *, timeout_seconds: float) -> Sequence[bytes]:
        """Take out what is there."""
        replies = self._log.broker.inboxes.get(self.address, [])
        if not replies:
            self._log.clock.sleep(timeout_seconds)
            return []
        self._log.broker.inboxes[self.address] = []
        return replies

    def close(self) -> None:
        """Remove the inbox."""
        self._log.broker.inboxes.pop(self.address, None)
