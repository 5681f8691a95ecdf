"""The log on Apache Pulsar. What is relied upon is tested on a real broker (tests/pulsar)."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import pulsar
from magnetar.schemas import LogUnavailable, MessageId, SettingsError, Topic

from ..clock import Clock
from ..log import Message, TopicDescription
from .pulsar_admin import LOG_POLICIES, REPLY_POLICIES, PulsarAdmin
from .pulsar_consumer import PulsarConsumer
from .pulsar_send import PassThrough, PulsarAppender, PulsarPublisher, Sender

MESSAGE_BYTES_MAX: Final = 5 * 1024 * 1024 - 64 * 1024
"""The broker's `maxMessageSize`, 5 MiB by default, less room for metadata."""

SUBSCRIPTION: Final = "magnetar"
REPLIES: Final = "replies"
INCARNATION: Final = "magnetar.incarnation"
OPERATION_TIMEOUT_SECONDS: Final = 15
INBOX_QUEUE: Final = 20_000
"""A burst of replies beyond the receiver's queue is lost: 5,000 replies into a queue of 1,000 came to about 1,100."""


class _Closing(Protocol):
    closed: bool

    def close(self) -> None: ...


T = TypeVar("T", bound=_Closing)


class PulsarLog:
    """The log of one tenant. Two clients: fencing one producer closes the whole connection that it shares."""

    def __init__(
        self,
        service_url: str,
        admin_url: str,
        *,
        clock: Clock,
        tenant: str = "public",
        batching: bool = True,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self.message_bytes_max = message_bytes_max
        self._tenant = tenant
        self._clock = clock
        self._batching = batching
        self._admin = PulsarAdmin(admin_url)
        self._writers = _client(service_url)
        self._others = _client(service_url)
        self._lock = threading.Lock()
        self._schemas: dict[tuple[Topic, int], str] = {}
        self._replies: dict[str, Any] = {}
        self._opened: list[_Closing] = []

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """Create namespace and topic if they are missing, and register the schema."""
        self._admin.ensure_namespace(f"{self._tenant}/{topic.context}", LOG_POLICIES)
        name = self._name(topic)
        found = self._admin.partitions(name)
        if found is None:
            self._admin.create_topic(name, partitions, {INCARNATION: str(uuid.uuid4())})
            found = self._admin.partitions(name)
        if found != partitions:
            raise SettingsError(
                f"{topic} has {found} partitions on this Pulsar, and the pipeline declares {partitions}.",
                cure="The number is fixed, because it decides where each aggregate lives: set it back.",
            )
        self._admin.register(name, schema)

    def describe(self, topic: Topic) -> TopicDescription:
        """What Pulsar knows of the topic."""
        name = self._name(topic)
        partitions = self._admin.partitions(name)
        if not partitions:
            raise LogUnavailable(f"The topic {name} does not exist on this Pulsar.", cure="Run the pipeline once.")
        return TopicDescription(partitions, self._admin.properties(name).get(INCARNATION, ""))

    def schema(self, topic: Topic, number: int) -> str:
        """The text of a version in the schema registry."""
        key = (topic, number)
        if key not in self._schemas:
            self._schemas[key] = self._admin.schema(self._name(topic), number)
        return self._schemas[key]

    def publisher(self, topic: Topic, *, schema: str) -> PulsarPublisher:
        """A producer per partition, opened when it is needed."""

        def open_sender(partition: int) -> Sender:
            with _translated(f"publishing to {topic}"):
                producer = self._others.create_producer(self._url(topic, partition), **self._producer(schema))
            return Sender(producer, self.message_bytes_max, self._clock)

        return self._keep(PulsarPublisher(open_sender))

    def consumer(self, topic: Topic, *, name: str) -> PulsarConsumer:
        """One Failover consumer per partition, all under one name."""

        def subscribe(partition: int) -> Any:
            with _translated(f"subscribing to {topic}"):
                return self._others.subscribe(
                    self._url(topic, partition),
                    SUBSCRIPTION,
                    consumer_type=pulsar.ConsumerType.Failover,
                    consumer_name=name,
                    initial_position=pulsar.InitialPosition.Earliest,
                    receiver_queue_size=1000,
                )

        def is_active(partition: int) -> bool:
            partition_topic = f"{self._name(topic)}-partition-{partition}"
            return self._admin.active_consumer(partition_topic, SUBSCRIPTION) == name

        return self._keep(PulsarConsumer(self.describe(topic).partitions, subscribe, is_active))

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> PulsarAppender:
        """Open an exclusive producer that fences whoever has the partition now."""
        options = self._producer(schema)
        options["producer_name"] = f"{name}-{secrets.token_hex(8)}"
        with _translated(f"fencing {topic} partition {partition}"):
            producer = self._writers.create_producer(
                self._url(topic, partition), access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing, **options
            )
        return self._keep(PulsarAppender(Sender(producer, self.message_bytes_max, self._clock)))

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> PulsarReader:
        """Read the partition behind this message, or from its start."""
        start = pulsar.MessageId.earliest
        if after is not None:
            start = pulsar.MessageId(partition, after.ledger, after.entry, after.batch)
        with _translated(f"reading {topic} partition {partition}"):
            return self._keep(PulsarReader(self._others.create_reader(self._url(topic, partition), start)))

    def inbox(self) -> PulsarInbox:
        """Open a topic of its own for replies, which need not outlive anybody."""
        self._admin.ensure_namespace(f"{self._tenant}/{REPLIES}", REPLY_POLICIES)
        address = f"non-persistent://{self._tenant}/{REPLIES}/{secrets.token_hex(16)}"
        with _translated("opening an inbox"):
            consumer = self._others.subscribe(address, "inbox", receiver_queue_size=INBOX_QUEUE)
        return self._keep(PulsarInbox(address, consumer))

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        """Put replies into an inbox, if the address is one: it is anybody's text."""
        if not re.fullmatch(rf"non-persistent://{re.escape(self._tenant)}/{REPLIES}/[0-9a-f]{{32}}", address):
            return
        with contextlib.suppress(pulsar.PulsarException):
            producer = self._replies.get(address)
            if producer is None:
                if len(self._replies) >= 1000:  # clients come and go: the oldest goes first
                    self._replies.pop(next(iter(self._replies))).close()
                producer = self._others.create_producer(address, block_if_queue_full=False, send_timeout_millis=1000)
                self._replies[address] = producer
            for payload in payloads:
                producer.send_async(payload, None)
            producer.flush()

    def close(self) -> None:
        """Close readers, consumers and producers, then the clients: the other way round would hang or lose."""
        for opened in self._opened:
            opened.close()
        for producer in self._replies.values():
            with contextlib.suppress(pulsar.PulsarException):
                producer.close()
        for client in (self._writers, self._others):
            with contextlib.suppress(pulsar.PulsarException):
                client.close()
        self._admin.close()

    def _keep(self, opened: T) -> T:
        with self._lock:
            self._opened = [each for each in self._opened if not each.closed]
            self._opened.append(opened)
        return opened

    def _producer(self, schema: str) -> dict[str, Any]:
        return {
            "schema": PassThrough(schema),
            "batching_enabled": self._batching,
            "batching_max_publish_delay_ms": 1,
            "batching_max_messages": 1000,
            "max_pending_messages": 10_000,
            "block_if_queue_full": True,
            "send_timeout_millis": 0,
        }

    def _name(self, topic: Topic) -> str:
        return f"{self._tenant}/{topic}"

    def _url(self, topic: Topic, partition: int) -> str:
        return f"persistent://{self._name(topic)}-partition-{partition}"


class PulsarReader:
    """Follows a partition."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.closed = False

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages; waits for the first only."""
        messages: list[Message] = []
        wait_ms = max(1, int(timeout_seconds * 1000))
        with contextlib.suppress(pulsar.Timeout), _translated("reading"):
            while len(messages) < messages_max:
                messages.append(message_of(self._reader.read_next(wait_ms)))
                wait_ms = 1
        return messages

    def close(self) -> None:
        """Let go."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self._reader.close()


class PulsarInbox:
    """A topic without storage, for the replies to one client."""

    def __init__(self, address: str, consumer: Any) -> None:
        self.address = address
        self._consumer = consumer
        self.closed = False

    def receive(self, *, timeout_seconds: float) -> Sequence[bytes]:
        """Return the replies that are there."""
        replies: list[bytes] = []
        wait_ms = max(1, int(timeout_seconds * 1000))
        with contextlib.suppress(pulsar.Timeout):
            while len(replies) < INBOX_QUEUE:
                message = self._consumer.receive(wait_ms)
                self._consumer.acknowledge(message)
                replies.append(message.data())
                wait_ms = 1
        return replies

    def close(self) -> None:
        """Let go of the inbox and what is still in it."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self._consumer.close()


def message_of(received: Any) -> Message:
    """A message as the port gives it. The public accessor of the schema's version fails from version 128 on."""
    id = received.message_id()
    place = MessageId(id.ledger_id(), id.entry_id(), id.batch_index())
    number = received._message.int_schema_version()  # noqa: SLF001
    return Message(place, received.partition_key(), received.data(), received.publish_timestamp(), number)


@contextmanager
def _translated(doing: str) -> Generator[None]:
    try:
        yield
    except pulsar.Timeout as error:
        if doing == "reading":
            raise
        raise LogUnavailable(f"Pulsar did not answer in time while {doing}.", cure="Does the broker run?") from error
    except pulsar.PulsarException as error:
        raise LogUnavailable(
            f"Pulsar refused {doing}: {type(error).__name__}.",
            cure="Check that the topic exists, and the rights to it.",
        ) from error


def _client(service_url: str) -> Any:
    logger = pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull)
    return pulsar.Client(service_url, operation_timeout_seconds=OPERATION_TIMEOUT_SECONDS, logger=logger)
