"""The log port for the simulation: one broker in memory, with everything that a real one may do wrong."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from magnetar.pipelines.log import Entry, Message, Run, TopicDescription
from magnetar.schemas import (
    LogUnavailable,
    MessageId,
    MessageRefused,
    OutcomeUnknown,
    OwnershipLost,
    SettingsError,
    Topic,
)
from magnetar.schemas.evolution import check_evolution

from tests.simulation.sim_consumer import SimConsumer, Subscription
from tests.simulation.stage import Stage

MESSAGE_BYTES_MAX: Final = 5 * 1024 * 1024 - 64 * 1024


class Flight:
    """The entries of one append on their way: they land one after the other, whatever became of their writer."""

    def __init__(self, token: int, entries: Sequence[Entry], schema: int) -> None:
        self.token = token
        self.entries = entries
        self.schema = schema
        self.landed = 0
        self.refused = False
        self.broken = False
        """Something between its entries was lost: the writer must never be told that all is stored."""
        self.last = MessageId(0)

    @property
    def done(self) -> bool:
        return self.landed == len(self.entries)


class SimPartition:
    """One partition of a topic."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[Message] = []
        self.owner = 0
        self.newest_writer = 0
        self.trimmed = 0
        self.flights: list[Flight] = []
        self.late: list[tuple[Entry, int, int]] = []
        self.subscription = Subscription(number, self.messages)
        self._lock = threading.Lock()  # for the contract suite, which has threads

    def fence(self, token: int) -> None:
        """From here on, only this writer may send."""
        with self._lock:
            self.owner = token

    def store(self, entry: Entry, at_ms: int, schema: int) -> MessageId:
        id = MessageId(len(self.messages) + 1)
        self.messages.append(Message(id, entry.key, entry.payload, at_ms, schema))
        return id

    def land(self, flight: Flight, at_ms: int) -> None:
        """Let the next entry of a flight land, unless a newer writer's message stands in the log already."""
        with self._lock:
            if flight.token < self.newest_writer:
                flight.refused = True
            else:
                self.newest_writer = flight.token
                flight.last = self.store(flight.entries[flight.landed], at_ms, flight.schema)
                flight.landed += 1
        if flight.refused or flight.done:
            self.flights.remove(flight)


class SimTopic:
    """A topic."""

    def __init__(self, partitions: int, incarnation: str) -> None:
        self.incarnation = incarnation
        self.partitions = [SimPartition(number) for number in range(partitions)]
        self.schemas: list[str] = []


class SimBroker:
    """What all processes share."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.topics: dict[Topic, SimTopic] = {}
        self.inboxes: dict[str, list[bytes]] = {}
        self.replies: list[tuple[str, bytes]] = []
        self.tokens = itertools.count(1)

    def topic(self, topic: Topic) -> SimTopic:
        if topic not in self.topics:
            raise LogUnavailable(f"The topic {topic} does not exist.")
        return self.topics[topic]

    def land_something(self) -> bool:
        """Let one thing come through that is on its way; returns whether there was any."""
        partitions = [p for t in self.topics.values() for p in t.partitions]
        for partition in (p for p in partitions if p.flights):
            flight = partition.flights[self.stage.pick("flight", len(partition.flights))]
            self.land(partition, flight)
            return True
        for partition in (p for p in partitions if p.late):
            entry, at_ms, schema = partition.late.pop(0)
            partition.store(entry, at_ms, schema)
            self.stage.note(f"a late command lands on partition {partition.number}")
            return True
        return False

    def land(self, partition: SimPartition, flight: Flight) -> None:
        if self.stage.strikes("hole"):
            flight.broken = True
            flight.landed += 1
            if flight.done:
                partition.flights.remove(flight)
            return
        partition.land(flight, self.stage.ms)
        late = ", late" if flight.token != partition.owner else ""
        self.stage.note(
            f"an entry on its way to partition {partition.number} is refused"
            if flight.refused
            else f"entry {flight.landed} of {len(flight.entries)} lands on partition {partition.number}{late}"
        )


class SimLog:
    """One process's connection."""

    def __init__(self, broker: SimBroker, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.message_bytes_max = message_bytes_max
        self.broker = broker
        self.stage = broker.stage
        self.consumers: list[SimConsumer] = []

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        count = len(self.broker.topics) + 1
        found = self.broker.topics.setdefault(topic, SimTopic(partitions, f"00000000-0000-4000-8000-{count:012d}"))
        if len(found.partitions) != partitions:
            raise SettingsError(f"{topic} has {len(found.partitions)} partitions, not {partitions}.")
        if schema not in found.schemas:
            check_evolution(str(topic), found.schemas, schema)
            found.schemas.append(schema)

    def describe(self, topic: Topic) -> TopicDescription:
        found = self.broker.topic(topic)
        return TopicDescription(len(found.partitions), found.incarnation)

    def schema(self, topic: Topic, number: int) -> str:
        schemas = self.broker.topic(topic).schemas
        if not 1 <= number <= len(schemas):
            raise LogUnavailable(f"{topic} has no schema number {number}.")
        return schemas[number - 1]

    def number_of(self, topic: Topic, schema: str) -> int:
        schemas = self.broker.topic(topic).schemas
        if schema not in schemas:
            raise SettingsError(f"The schema for {topic} is not registered.", cure="Provision the topic first.")
        return schemas.index(schema) + 1

    def check_sizes(self, entries: Sequence[Entry]) -> None:
        if any(len(entry.payload) > self.message_bytes_max for entry in entries):
            raise MessageRefused(f"A message was not stored: the limit is {self.message_bytes_max:,} bytes.")

    def check_available(self, doing: str) -> None:
        if self.stage.strikes("log is unavailable"):
            raise LogUnavailable(f"The broker does not answer while {doing}.")

    def publisher(self, topic: Topic, *, schema: str) -> SimPublisher:
        return SimPublisher(self, self.broker.topic(topic), self.number_of(topic, schema))

    def consumer(self, topic: Topic, *, name: str) -> SimConsumer:
        self.stage.switch("subscribe")
        consumer = SimConsumer(self.stage, [p.subscription for p in self.broker.topic(topic).partitions], name)
        self.consumers.append(consumer)
        return consumer

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> SimAppender:
        number, found = self.number_of(topic, schema), self.broker.topic(topic).partitions[partition]
        self.stage.switch("fence")
        self.check_available("fencing")
        found.fence(token := next(self.broker.tokens))
        appender = SimAppender(self, found, token, number)
        self.stage.switch("fenced")
        if self.stage.strikes("fence is not confirmed"):
            raise LogUnavailable("The fence was not confirmed.")
        return appender

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> SimReader:
        return SimReader(self, self.broker.topic(topic).partitions[partition], 0 if after is None else after.ledger)

    def end(self, topic: Topic, partition: int) -> MessageId | None:
        self.stage.switch("end")
        self.check_available("asking for the end")
        messages = self.broker.topic(topic).partitions[partition].messages
        return messages[-1].id if messages else None

    def trim(self, topic: Topic, partition: int, *, through: MessageId) -> None:
        self.stage.switch("trim")
        self.check_available("trimming")
        found = self.broker.topic(topic).partitions[partition]
        found.trimmed = max(found.trimmed, through.ledger)

    def inbox(self) -> SimInbox:
        return SimInbox(self)

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        self.stage.switch("reply")
        if self.stage.strikes("reply is lost") or address not in self.broker.inboxes:
            return
        self.broker.inboxes[address] += payloads
        self.broker.replies += [(address, payload) for payload in payloads]

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.close()


class SimPublisher:
    """Puts commands on a topic."""

    def __init__(self, log: SimLog, topic: SimTopic, schema: int) -> None:
        self._log = log
        self._topic = topic
        self._schema = schema

    def publish(self, partition: int, entries: Sequence[Entry], *, timeout_seconds: float) -> None:
        self._log.check_sizes(entries)
        stage, found = self._log.stage, self._topic.partitions[partition]
        for entry in entries:
            stage.switch("publish")
            if stage.strikes("publication is lost"):
                raise OutcomeUnknown("The command is lost.")
            if stage.strikes("publication is late"):
                found.late.append((entry, stage.ms, self._schema))
                raise OutcomeUnknown("The command is late.")
            found.store(entry, stage.ms, self._schema)
        if stage.strikes("publication is not confirmed"):
            raise OutcomeUnknown("The confirmation did not come.")

    def close(self) -> None:
        """Nothing to let go of."""


class SimAppending:
    """Entries in the air."""

    def __init__(self, appender: SimAppender, stage: Stage, flight: Flight, deadline: float) -> None:
        self._appender = appender
        self._stage = stage
        self._flight = flight
        self._deadline = deadline

    @property
    def is_over(self) -> bool:
        """Somebody who is told so, and then has to wait, has lost nothing but time."""
        return self._flight.done or bool(self._stage.pick("whether the append is over", 2))

    def wait(self) -> MessageId:
        stage, flight = self._stage, self._flight
        self._appender.wait_for(flight)
        stage.switch("confirmation")
        if flight.broken or stage.monotonic() > self._deadline or stage.strikes("confirmation is lost"):
            raise OutcomeUnknown("Not everything was confirmed in time.")
        return flight.last


class SimAppender:
    """A writer with its token."""

    def __init__(self, log: SimLog, partition: SimPartition, token: int, schema: int) -> None:
        self._log = log
        self._partition = partition
        self._token = token
        self._schema = schema
        self.closed = False

    def begin(self, entries: Sequence[Entry], *, timeout_seconds: float) -> SimAppending:
        """All entries are sent at once; between any two that land, anything may happen."""
        self._log.check_sizes(entries)
        stage = self._log.stage
        deadline = stage.monotonic() + timeout_seconds
        stage.switch("append")
        self.check_owner()
        flight = Flight(self._token, entries, self._schema)
        self._partition.flights.append(flight)
        return SimAppending(self, stage, flight, deadline)

    def append(self, entries: Sequence[Entry], *, timeout_seconds: float) -> MessageId:
        return self.begin(entries, timeout_seconds=timeout_seconds).wait()

    def check_owner(self) -> None:
        if self._partition.owner != self._token:
            raise OwnershipLost("Another writer has taken the partition over.")

    def wait_for(self, flight: Flight) -> None:
        """Until all have landed, one after the other."""
        stage = self._log.stage
        while not flight.done:
            stage.switch(f"entry {flight.landed + 1} of {len(flight.entries)}")
            if flight.refused:
                raise OwnershipLost("Another writer has taken the partition over.")
            if flight.done:
                return
            if stage.strikes("append is cut off"):
                self._cut_off(flight)
                raise OutcomeUnknown("The connection broke.")
            self.check_owner()
            if flight.landed and stage.strikes("resend"):
                flight.landed = 0
            if self._partition.newest_writer < self._token:
                self._let_late_ones_land()
            self._partition.land(flight, stage.ms)

    def _let_late_ones_land(self) -> None:
        """The last moment for the entries of older writers: before the first of this one."""
        broker, partition = self._log.broker, self._partition
        while (older := [f for f in partition.flights if f.token < self._token]) and self._log.stage.strikes(
            "late entry"
        ):
            broker.land(partition, older[0])

    def _cut_off(self, flight: Flight) -> None:
        """The rest lands later, in part or whole, or never."""
        if self._log.stage.strikes("append is lost"):
            self._partition.flights.remove(flight)

    def close(self) -> None:
        self.closed = True


class SimReader:
    """Follows a partition."""

    def __init__(self, log: SimLog, partition: SimPartition, after: int) -> None:
        self._log = log
        self._partition = partition
        self._after = after

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        stage = self._log.stage
        stage.switch("read")
        self._log.check_available("reading")
        few = stage.pick("how many are read", 4)
        messages_max = min(few, messages_max) if few else messages_max
        self._after = max(self._after, self._partition.trimmed)
        messages = self._partition.messages[self._after : self._after + messages_max]
        if not messages:
            stage.sleep(timeout_seconds)
            messages = self._partition.messages[self._after : self._after + messages_max]
        self._after += len(messages)
        return messages

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        messages = self.read(messages_max=messages_max, timeout_seconds=timeout_seconds)
        if not messages:
            return None
        run = [*takewhile(lambda message: message.schema == messages[0].schema, messages)]
        self._after -= len(messages) - len(run)
        return Run([message.payload for message in run], run[0].schema, run[-1].id)

    def close(self) -> None:
        """Nothing to let go of."""


class SimInbox:
    """Replies to one client."""

    def __init__(self, log: SimLog) -> None:
        self._log = log
        self.address = f"inbox-{next(log.broker.tokens)}"
        log.broker.inboxes[self.address] = []

    def receive(self, *, timeout_seconds: float) -> Sequence[bytes]:
        self._log.stage.switch("receive replies")
        if not self._log.broker.inboxes.get(self.address):
            self._log.stage.sleep(timeout_seconds)
        replies = self._log.broker.inboxes.get(self.address, [])
        if replies:
            self._log.broker.inboxes[self.address] = []
        return replies

    def close(self) -> None:
        self._log.broker.inboxes.pop(self.address, None)
