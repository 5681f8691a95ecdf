"""The log on Apache Pulsar. What is relied upon is tested on a real broker (tests/pulsar)."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import pulsar
from magnetar.schemas import AccessDenied, LogUnavailable, MessageId, Topic, TopicKind

from ..clock import Clock
from ..log import Backlog, Ownership, Reached, TopicDescription
from ..preflight import Finding
from ..provisioning import Roles, Step, WantedTopic, apply
from .pulsar_access import Access, is_encrypted
from .pulsar_admin import INCARNATION, WORKERS, PulsarAdmin, by_partition
from .pulsar_backlog import backlog_of, owner_of, producer_name, reached
from .pulsar_consumer import BACKLOG, PulsarConsumer
from .pulsar_messages import PulsarReader, translated
from .pulsar_plan import REPLIES_NAMESPACE, PulsarPlan
from .pulsar_preflight import PulsarPreflight, rights_findings
from .pulsar_reach import check_answers, check_listens
from .pulsar_replies import INBOX_QUEUE, PulsarInbox, Replier
from .pulsar_send import PENDING_MESSAGES_MAX, PassThrough, PulsarAppender, PulsarPublisher, Sender
from .pulsar_share import PROJECTORS, PulsarShare
from .pulsar_start import PulsarStart

MESSAGE_BYTES_MAX: Final = 5 * 1024 * 1024 - 64 * 1024
"""The broker's `maxMessageSize`, 5 MiB by default, less room for metadata."""

SUBSCRIPTION: Final = WORKERS
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
        access: Access | None = None,
    ) -> None:
        """Connect to a cluster; `client_log` is a file for what Pulsar's client has to warn of.

        Asks the admin API first: raises LogUnavailable if it does not answer, or nobody listens at the service URL, and
        AccessDenied for a token that is missing, wrong or expired, at once; SettingsError for a certificate.
        """
        access = access or Access()
        self.message_bytes_max = message_bytes_max
        self._tenant = tenant
        self._clock = clock
        self._batching = batching
        self._admin = PulsarAdmin(admin_url, access)
        try:
            self._admin.check()
            check_listens(service_url, access.tls)
            self._writers = _client(service_url, client_log, access)
            self._others = _client(service_url, client_log, access)
        except BaseException:
            self._admin.close()
            raise
        self._service_url, self._access = service_url, access
        self._exposed = access.token is not None and not is_encrypted(service_url, admin_url)
        self._lock = threading.Lock()
        self._schemas: dict[tuple[Topic, int], str] = {}
        self._replier = Replier(self._reply_producer)
        self._opened: list[_Closing] = []

    def plan(self, topics: Sequence[WantedTopic], roles: Roles) -> list[Step]:
        """What is to be done for these topics, by somebody who may. Raises LogUnavailable for a wrong service URL."""
        self._check_answers(topics)
        return PulsarPlan(self._admin, self._tenant).steps(topics, roles)

    def examine(self, topics: Sequence[WantedTopic]) -> list[Finding]:
        """What is not as it should be. Raises LogUnavailable for a service URL at which no broker answers."""
        self._check_answers(topics)
        preflight = PulsarPreflight(
            self._admin,
            self._tenant,
            message_bytes_max=self.message_bytes_max,
            now_ms=self._clock.now_ms,
            exposed=self._exposed,
        )
        return preflight.findings(topics)

    def examine_rights(self, topics: Sequence[WantedTopic], roles: Roles) -> list[Finding]:
        """Which rights the roles lack on the topics that are there, as `plan` would give them."""
        return list(rights_findings(self._admin, self._tenant, topics, roles))

    def _check_answers(self, topics: Sequence[WantedTopic]) -> None:
        names = (self._name(wanted.topic) for wanted in topics)
        existing = next((name for name in names if self._admin.partitions(name)), None)
        check_answers(self._service_url, existing, self._access.client_options(), self._access.tls)

    def provision(self, topic: Topic, *, partitions: int, schema: str) -> None:
        """What a worker does at its start: create what is missing, if it may, and change nothing that is there.

        Raises SettingsError and LogUnsafe besides, and AccessDenied if something is missing that it may not create.
        """
        PulsarStart(self._admin, self._tenant).provision(WantedTopic(topic, partitions, schema))

    def describe(self, topic: Topic) -> TopicDescription:
        """What Pulsar knows of the topic. Raises LogUnavailable also for one that Magnetar has not made."""
        name = self._name(topic)
        partitions = self._admin.partitions(name)
        if partitions is None:
            raise LogUnavailable(
                f"The topic {name} does not exist on this Pulsar.",
                cure="Run the pipeline once, or `magnetar provision MODULE`. If that was done, check MAGNETAR_TENANT.",
            )
        incarnation = self._admin.properties(name).get(INCARNATION)
        if not partitions or incarnation is None:
            raise LogUnavailable(
                f"The topic {name} was not made by Magnetar: it has "
                f"{'no incarnation' if partitions else 'no partitions'}.",
                cure="`magnetar plan MODULE` says what would be done about it.",
            )
        return TopicDescription(partitions, incarnation)

    def schema(self, topic: Topic, number: int) -> str:
        """The text of a version in the schema registry."""
        key = (topic, number)
        if key not in self._schemas:
            self._schemas[key] = self._admin.schema(self._name(topic), number)
        return self._schemas[key]

    @contextmanager
    def _translated(self, doing: str, **options: Any) -> Generator[None]:
        """As `translated`; where the token has expired, which the client only waits for in vain, that is said."""
        try:
            with translated(doing, **options):
                yield
        except LogUnavailable as error:
            if not self._access.has_expired or isinstance(error, AccessDenied):
                raise
            what, cure = self._access.why_refused()
            raise AccessDenied(what, cure=cure) from error

    def publisher(self, topic: Topic, *, schema: str) -> PulsarPublisher:
        """A producer per partition, opened when it is needed."""

        def open_sender(partition: int) -> Sender:
            with self._translated(f"publishing to {topic}", right="produce"):
                producer = self._others.create_producer(self._url(topic, partition), **self._producer(schema))
            return Sender(producer, self.message_bytes_max, self._clock)

        return self._keep(PulsarPublisher(open_sender, self._clock))

    def consumer(self, topic: Topic, *, name: str) -> PulsarConsumer:
        """One Failover consumer per partition, all under one name."""

        subscribe = self._subscribing(
            topic,
            SUBSCRIPTION,
            name,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=1000,
            batch_receive_policy=BACKLOG,
        )

        def is_active(partition: int) -> bool:
            return self._admin.active_consumer(self._partition_name(topic, partition), SUBSCRIPTION) == name

        def has_acknowledged(partition: int) -> bool:
            return self._admin.has_acknowledged(self._partition_name(topic, partition), SUBSCRIPTION)

        partitions = self.describe(topic).partitions
        consumer = PulsarConsumer(partitions, subscribe, is_active=is_active, has_acknowledged=has_acknowledged)
        return self._keep(consumer)

    def share(self, topic: Topic, *, name: str, group: str = "") -> PulsarShare:
        """One Failover consumer per partition of the event topic, all under one name, of which none reads."""
        subscription = f"{PROJECTORS}-{group}" if group else PROJECTORS
        subscribe = self._subscribing(
            topic, subscription, name, initial_position=pulsar.InitialPosition.Latest, receiver_queue_size=1
        )

        def active() -> dict[int, str]:
            stats = by_partition(self._admin.stats(self._name(topic)))
            found = {nth: each.get("subscriptions", {}).get(subscription, {}) for nth, each in stats.items()}
            return {partition: str(each.get("activeConsumerName")) for partition, each in found.items()}

        partitions = self.describe(topic).partitions
        return self._keep(PulsarShare(partitions, subscribe, active, name, is_passing=bool(group)))

    def _subscribing(self, topic: Topic, subscription: str, name: str, **options: Any) -> Callable[[int], Any]:
        """How to take part in a partition of a topic: by a Failover consumer of this name."""

        def subscribe(partition: int) -> Any:
            with self._translated(f"subscribing to {topic}"):
                return self._others.subscribe(
                    self._url(topic, partition),
                    subscription,
                    consumer_type=pulsar.ConsumerType.Failover,
                    consumer_name=name,
                    **options,
                )

        return subscribe

    def fence(self, topic: Topic, partition: int, *, schema: str, name: str) -> PulsarAppender:
        """Open an exclusive producer that fences whoever has the partition now."""
        options = self._producer(schema)
        options["producer_name"] = producer_name(name, secrets.token_hex(8))
        with self._translated(f"fencing {topic} partition {partition}", right="produce"):
            producer = self._writers.create_producer(
                self._url(topic, partition), access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing, **options
            )
        return self._keep(PulsarAppender(Sender(producer, self.message_bytes_max, self._clock)))

    def reader(self, topic: Topic, partition: int, *, after: MessageId | None) -> PulsarReader:
        """Read the partition behind this message, or from its start.

        What may be trimmed is passed over: the broker drops whole ledgers alone, and one takes gigabytes of rounds.
        """
        if after is None and topic.kind is TopicKind.CHECKPOINTS:
            after = self._admin.keeper(self._partition_name(topic, partition))
        start = pulsar.MessageId.earliest
        if after is not None:
            start = pulsar.MessageId(partition, after.ledger, after.entry, after.batch)
        with self._translated(f"reading {topic} partition {partition}"):
            return self._keep(PulsarReader(self._others.create_reader(self._url(topic, partition), start)))

    def end(self, topic: Topic, partition: int) -> MessageId | None:
        """The last message of the partition, as the broker knows it."""
        return self._admin.last_message(self._partition_name(topic, partition))

    def trim(self, topic: Topic, partition: int, *, through: MessageId) -> None:
        """Move the keeper on: the broker drops whole ledgers that are behind it."""
        self._admin.move_keeper(self._partition_name(topic, partition), through)

    def backlog(self, topic: Topic) -> list[Backlog]:
        """How far the workers are, by partition: two calls of the admin API, and a look at what waits."""
        partitions, name = self.describe(topic).partitions, self._name(topic)
        stats, internal = by_partition(self._admin.stats(name)), by_partition(self._admin.internal_stats(name))

        def read_behind(partition: int) -> Callable[[MessageId | None], PulsarReader]:
            return lambda after: self.reader(topic, partition, after=after)

        return [
            backlog_of(stats.get(each, {}), internal.get(each, {}), SUBSCRIPTION, read_behind(each))
            for each in range(partitions)
        ]

    def reached(self, topic: Topic) -> list[Reached]:
        """How far each partition is stored and acknowledged: one call of the admin API, which any client may make."""
        internal = by_partition(self._admin.internal_stats(self._name(topic)))
        return [reached(internal.get(each, {}), SUBSCRIPTION) for each in range(self.describe(topic).partitions)]

    def owners(self, topic: Topic) -> list[Ownership | None]:
        """Who has the exclusive producer of each partition."""
        stats = by_partition(self._admin.stats(self._name(topic)))
        return [owner_of(stats.get(partition, {})) for partition in range(self.describe(topic).partitions)]

    def inbox(self) -> PulsarInbox:
        """Open a topic of its own for replies, which need not outlive anybody."""
        address = f"non-persistent://{self._tenant}/{REPLIES_NAMESPACE}/{secrets.token_hex(16)}"
        try:
            consumer = self._subscribe_inbox(address)
        except pulsar.TopicNotFound:
            apply(list(PulsarPlan(self._admin, self._tenant).reply_steps()))
            with self._translated("opening an inbox"):
                consumer = self._subscribe_inbox(address)
        return self._keep(PulsarInbox(address, consumer))

    def _subscribe_inbox(self, address: str) -> Any:
        with self._translated("opening an inbox", but=pulsar.TopicNotFound):
            return self._others.subscribe(address, "inbox", receiver_queue_size=INBOX_QUEUE)

    def reply(self, address: str, payloads: Sequence[bytes]) -> None:
        """Put replies into an inbox, if the address is one: it is anybody's text."""
        if re.fullmatch(rf"non-persistent://{re.escape(self._tenant)}/{REPLIES_NAMESPACE}/[0-9a-f]{{32}}", address):
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

    def _partition_name(self, topic: Topic, partition: int) -> str:
        return f"{self._name(topic)}-partition-{partition}"

    def _url(self, topic: Topic, partition: int) -> str:
        return f"persistent://{self._partition_name(topic, partition)}"


def _client(service_url: str, log_file: str, access: Access) -> Any:
    logger = pulsar.FileLogger(pulsar.LoggerLevel.Warn, log_file)
    return pulsar.Client(
        service_url, operation_timeout_seconds=OPERATION_TIMEOUT_SECONDS, logger=logger, **access.client_options()
    )
