"""The log on Apache Pulsar. What is relied upon is tested on a real broker (tests/pulsar)."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import uuid
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import pulsar
from magnetar.schemas import LogUnavailable, MessageId, SettingsError, Topic, TopicKind

from ..clock import Clock
from ..log import TopicDescription
from .pulsar_admin import PulsarAdmin
from .pulsar_consumer import BACKLOG, PulsarConsumer
from .pulsar_messages import PulsarReader, translated
from .pulsar_replies import INBOX_QUEUE, PulsarInbox, Replier
from .pulsar_send import PENDING_MESSAGES_MAX, PassThrough, PulsarAppender, PulsarPublisher, Sender

MESSAGE_BYTES_MAX: Final = 5 * 1024 * 1024 - 64 * 1024
"""The broker's `maxMessageSize`, 5 MiB by default, less room for metadata."""

SUBSCRIPTION: Final = "magnetar"
REPLIES: Final = "magnetar-replies"
"""The namespace of the inboxes. No context can have this name: a context's has no hyphen."""

INCARNATION: Final = "magnetar.incarnation"
OPERATION_TIMEOUT_SECONDS: Final = 15


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
        client_log: str = os.devnull,
    ) -> None:
        """Connect to a cluster; `client_log` is a file for what Pulsar's client has to warn of."""
        self.message_bytes_max = message_bytes_max
        self._tenant = tenant
        self._clock = clock
        self._batching = batching
        self._admin = PulsarAdmin(admin_url)
        self._writers = _client(service_url, client_log)
        self._others = _client(service_url, client_log)
        self._lock = threading.Lock()
        self._schemas: dict[tuple[Topic, int], str] = {}
        self._replier = Replier(self._reply_producer)
        self._opened: list[_Closing] = []

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """Create namespace and topic if they are missing, and register the schema."""
        self._admin.ensure_log_namespace(f"{self._tenant}/{topic.context}")
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
        if topic.kind is TopicKind.CHECKPOINTS:
            self._admin.let_trim(name)

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
            with translated(f"publishing to {topic}"):
                producer = self._others.create_producer(self._url(topic, partition), **self._producer(schema))
            return Sender(producer, self.message_bytes_max, self._clock)

        return self._keep(PulsarPublisher(open_sender, self._clock))

    def consumer(self, topic: Topic, *, name: str) -> PulsarConsumer:
        """One Failover consumer per partition, all under one name."""

        def subscribe(partition: int) -> Any:
            with translated(f"subscribing to {topic}"):
                return self._others.subscribe(
                    self._url(topic, partition),
                    SUBSCRIPTION,
                    consumer_type=pulsar.ConsumerType.Failover,
                    consumer_name=name,
                    initial_position=pulsar.InitialPosition.Earliest,
                    receiver_queue_size=1000,
                    batch_receive_policy=BACKLOG,
                )

        def is_active(partition: int) -> bool:
            partition_topic = f"{self._name(topic)}-partition-{partition}"
            return self._admin.active_consumer(partition_topic, SUBSCRIPTION) == name

        return self._keep(PulsarConsumer(self.describe(topic).partitions, subscribe, is_active))

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> PulsarAppender:
        """Open an exclusive producer that fences whoever has the partition now."""
        options = self._producer(schema)
        options["producer_name"] = f"{name}-{secrets.token_hex(8)}"
        with translated(f"fencing {topic} partition {partition}"):
            producer = self._writers.create_producer(
                self._url(topic, partition), access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing, **options
            )
        return self._keep(PulsarAppender(Sender(producer, self.message_bytes_max, self._clock)))

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> PulsarReader:
        """Read the partition behind this message, or from its start."""
        start = pulsar.MessageId.earliest
        if after is not None:
            start = pulsar.MessageId(partition, after.ledger, after.entry, after.batch)
        with translated(f"reading {topic} partition {partition}"):
            return self._keep(PulsarReader(self._others.create_reader(self._url(topic, partition), start)))

    def end(self, topic: Topic, partition: int) -> MessageId | None:
        """The last message of the partition, as the broker knows it."""
        return self._admin.last_message(f"{self._name(topic)}-partition-{partition}")

    def trim(self, topic: Topic, partition: int, *, through: MessageId) -> None:
        """Move the keeper on: the broker drops whole ledgers that are behind it."""
        self._admin.move_keeper(f"{self._name(topic)}-partition-{partition}", through)

    def inbox(self) -> PulsarInbox:
        """Open a topic of its own for replies, which need not outlive anybody."""
        self._admin.ensure_reply_namespace(f"{self._tenant}/{REPLIES}")
        address = f"non-persistent://{self._tenant}/{REPLIES}/{secrets.token_hex(16)}"
        with translated("opening an inbox"):
            consumer = self._others.subscribe(address, "inbox", receiver_queue_size=INBOX_QUEUE)
        return self._keep(PulsarInbox(address, consumer))

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        """Put replies into an inbox, if the address is one: it is anybody's text."""
        if re.fullmatch(rf"non-persistent://{re.escape(self._tenant)}/{REPLIES}/[0-9a-f]{{32}}", address):
            self._replier.put(address, payloads)

    def _reply_producer(self, address: str) -> Any:
        return self._others.create_producer(
            address,
            # Unbatched, 18 of 48 bursts lost replies, batched none: the broker drops what is not stored beyond 1000
            # sends under way in a connection (maxConcurrentNonPersistentMessagePerConnection).
            batching_enabled=True,
            batching_max_publish_delay_ms=1,
            max_pending_messages=INBOX_QUEUE,
            block_if_queue_full=False,
            send_timeout_millis=1000,
        )

    def close(self) -> None:
        """Close readers, consumers and producers, then the clients: the other way round would hang or lose."""
        for opened in self._opened:
            opened.close()
        self._replier.close()
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
            "max_pending_messages": PENDING_MESSAGES_MAX,
            "block_if_queue_full": True,
            "send_timeout_millis": 0,
        }

    def _name(self, topic: Topic) -> str:
        return f"{self._tenant}/{topic}"

    def _url(self, topic: Topic, partition: int) -> str:
        return f"persistent://{self._name(topic)}-partition-{partition}"


def _client(service_url: str, log_file: str) -> Any:
    logger = pulsar.FileLogger(pulsar.LoggerLevel.Warn, log_file)
    return pulsar.Client(service_url, operation_timeout_seconds=OPERATION_TIMEOUT_SECONDS, logger=logger)
