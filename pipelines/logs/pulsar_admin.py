"""The few calls of Pulsar's admin API that the log needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import httpx
from magnetar.schemas import AccessDenied, LogUnavailable, MessageId, SettingsError

from .pulsar_access import Access

TIMEOUT_SECONDS: Final = 15.0

OK: Final = 200
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
PRECONDITION: Final = 412
KEEPER: Final = "keeper"
LAST_OF_BATCH: Final = 2**31 - 1
"""Behind any message of a batch: a reader that begins behind an entry's number alone begins with its first message."""

WORKERS: Final = "magnetar"
"""The subscription of the workers on the command topics."""
INCARNATION: Final = "magnetar.incarnation"
TRIMMED: Final = {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0}
"""The retention of a topic of checkpoints: its keeper decides what stays."""
_EARLIEST: Final = {"ledgerId": -1, "entryId": -1, "partitionIndex": -1}

_REDIRECTS_MAX: Final = 5
_CERTIFICATE, _HTTPS_ONLY, _HTTP_ONLY = "CERTIFICATE_VERIFY_FAILED", "illegal request line", "WRONG_VERSION_NUMBER"
"""What the HTTP client says where no waiting helps: of the certificate, and where one side alone speaks TLS."""
_CURES: Final = {
    _CERTIFICATE: "Check MAGNETAR_TLS_CA, and the host name in MAGNETAR_BROKER_ADMIN.",
    _HTTPS_ONLY: "Does the port want TLS? MAGNETAR_BROKER_ADMIN is then https://…, and MAGNETAR_BROKER pulsar+ssl://….",
    _HTTP_ONLY: "The port knows no TLS: MAGNETAR_BROKER_ADMIN is then http://…, and MAGNETAR_BROKER pulsar://….",
}
_UNANSWERED: Final = "Check MAGNETAR_BROKER_ADMIN (without it, it is http://127.0.0.1:8080), and that the broker runs."


class RegisteredSchema(NamedTuple):
    """One version of a topic's schema in the registry."""

    version: int
    type: str
    text: str


class PulsarAdmin:
    """A thin client of the admin API.

    Raises LogUnavailable for what the broker does not do, AccessDenied for what it does not do for us.
    """

    def __init__(self, url: str, access: Access) -> None:
        self.url = url
        self._access = access
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/admin/v2", timeout=TIMEOUT_SECONDS, **access.admin_options()
        )

    def check(self) -> None:
        """Raise at once if nobody answers, or the token is not taken: Pulsar's client would only time out.

        Raises SettingsError for a wrong authority, host name or scheme, which no waiting mends.
        """
        try:
            self.call("GET", "/brokers/version")
        except LogUnavailable as error:
            if isinstance(error.__cause__, httpx.HTTPError) and any(each in error.what for each in _CURES):
                raise SettingsError(error.what, cure=error.cure) from error.__cause__
            raise

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        accept: tuple[int, ...] = (),
        content_type: str = "application/json",
    ) -> httpx.Response:
        """One call; `accept` are the codes that are no failure besides 2xx."""
        content = None if body is None else json.dumps(body)
        try:
            response = self._asked(method, path, content, {"Content-Type": content_type})
        except httpx.HTTPError as error:
            raise LogUnavailable(
                f"Pulsar's admin API at {self._client.base_url} does not answer: {str(error).rstrip('.')}.",
                cure=next((cure for said, cure in _CURES.items() if said in str(error)), _UNANSWERED),
            ) from error
        if response.is_success or response.status_code in accept:
            return response
        if response.status_code == UNAUTHORIZED and not _knows_us(response):
            what, cure = self._access.why_refused()
            raise AccessDenied(what, cure=cure)
        if response.status_code in (UNAUTHORIZED, FORBIDDEN):
            raise AccessDenied(
                f"Pulsar does not allow this role {method} {path} ({_reason(response).strip()}).",
                cure="Use the token of a role that may (MAGNETAR_TOKEN_FILE), or have `magnetar provision` run by "
                "somebody who does.",
            )
        there = response.url.join(response.headers.get("Location", ""))
        if response.has_redirect_location and there.scheme != self._client.base_url.scheme:
            raise LogUnavailable(
                f"Pulsar's admin API at {self._client.base_url} sends us to {there.scheme}://{there.netloc.decode()}, "
                f"for {method} {path}, and it is not followed there: the token goes over no other kind of connection.",
                cure=f"Let MAGNETAR_BROKER_ADMIN begin with {there.scheme}://, at the port for it; or let the brokers "
                "advertise the kind of address that it has.",
            )
        raise LogUnavailable(
            f"Pulsar answered {response.status_code} to {method} {path}: {_reason(response)}",
            cure="Check the rights and the settings of the cluster.",
        )

    def _asked(self, method: str, path: str, content: str | None, headers: dict[str, str]) -> httpx.Response:
        """Ask, and ask the broker that it sends us to: a topic is looked after by one of them.

        The token goes along, to none over a plainer connection.
        """
        response = self._client.request(method, path, content=content, headers=headers)
        for _ in range(_REDIRECTS_MAX):
            url = response.url.join(response.headers.get("Location", ""))
            if not response.has_redirect_location or url.scheme != self._client.base_url.scheme:
                break
            response = self._client.request(method, url, content=content, headers=headers)
        return response

    # --- what provisioning and preflight read and do ------------------------------------------------------------------

    def read(self, path: str) -> Any:
        """What is there; None if it is not, or says nothing."""
        response = self.call("GET", path, accept=(NOT_FOUND,))
        return response.json() if response.is_success and response.text else None

    def runtime(self) -> dict[str, str] | None:
        """The broker's configuration; None if this role may not see it."""
        try:
            found: dict[str, str] = self.call("GET", "/brokers/configuration/runtime").json()
        except AccessDenied:
            return None
        return found

    def bookies(self) -> int:
        """How many machines store; 0 if this role may not know."""
        try:
            return len((self.read("/bookies/all") or {}).get("bookies", ()))
        except AccessDenied:
            return 0

    def has_tenant(self, tenant: str) -> bool:
        """Whether the tenant is there; yes, if this role may not see it."""
        try:
            return self.read(f"/tenants/{tenant}") is not None
        except AccessDenied:
            return True

    def clusters(self) -> list[str]:
        """The names of the clusters."""
        found: list[str] = self.call("GET", "/clusters").json()
        return found

    def create_tenant(self, tenant: str, clusters: Sequence[str]) -> None:
        """Create a tenant; not if there is one."""
        self.call("PUT", f"/tenants/{tenant}", {"allowedClusters": clusters, "adminRoles": []}, accept=(CONFLICT,))

    def namespace(self, namespace: str) -> dict[str, Any] | None:
        """A namespace's policies; None if it does not exist."""
        response = self.call("GET", f"/namespaces/{namespace}", accept=(NOT_FOUND,))
        found: dict[str, Any] | None = response.json() if response.is_success else None
        return found

    def create_namespace(self, namespace: str, policies: dict[str, Any]) -> None:
        """Create a namespace with all its policies; not if there is one. Raises SettingsError without its tenant."""
        response = self.call("PUT", f"/namespaces/{namespace}", policies, accept=(CONFLICT, NOT_FOUND))
        if response.status_code == NOT_FOUND:
            raise no_tenant(namespace.partition("/")[0])

    def namespace_permissions(self, namespace: str) -> dict[str, list[str]] | None:
        """Which roles may do what in a namespace; None if it does not exist."""
        found: dict[str, list[str]] | None = self.read(f"/namespaces/{namespace}/permissions")
        return found

    def topic_permissions(self, topic: str) -> dict[str, list[str]] | None:
        """Which roles may do what on a topic; None if it does not exist."""
        found: dict[str, list[str]] | None = self.read(f"/persistent/{topic}/permissions")
        return found

    def topic_policy(self, topic: str, path: str, *, applied: bool = False) -> Any:
        """A topic's own policy, or (`applied`) the one that holds; None if it has none."""
        return self.read(f"/persistent/{topic}/{path}{'?applied=true' if applied else ''}")

    def subscriptions(self, topic: str) -> list[str]:
        """The names of a topic's subscriptions."""
        return self.read(f"/persistent/{topic}/subscriptions") or []

    def set_properties(self, topic: str, properties: dict[str, str]) -> None:
        """Set properties of a topic."""
        self.call("PUT", f"/persistent/{topic}/properties", properties)

    def schemas(self, topic: str) -> list[RegisteredSchema]:
        """All versions that the registry has for a topic, the oldest first; after a deletion, only later ones."""
        response = self.call("GET", f"/schemas/{topic}/schemas", accept=(NOT_FOUND,))
        versions = response.json()["getSchemaResponses"] if response.is_success else []
        return sorted(RegisteredSchema(each["version"], each["type"], each["data"]) for each in versions)

    # --- what the log reads and does ------------------------------------------------------------------------------

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None if it does not exist."""
        response = self.call("GET", f"/persistent/{topic}/partitions", accept=(404,))
        if response.status_code == NOT_FOUND:
            return None
        return int(response.json()["partitions"])

    def missing_partitions(self, topic: str, partitions: int) -> list[int]:
        """Those that are not there, although the topic says that it has them: each is a topic that can be deleted."""
        there: list[str] = self.read(f"/persistent/{topic.rpartition('/')[0]}") or []
        return [nth for nth in range(partitions) if f"persistent://{topic}-partition-{nth}" not in there]

    def create_missing_partitions(self, topic: str) -> None:
        """Create them, empty. Repeatable."""
        self.call("POST", f"/persistent/{topic}/createMissedPartitions")

    def create_topic(self, topic: str, partitions: int, properties: dict[str, str]) -> None:
        """Create a partitioned topic with properties; not if there is one."""
        self.call(
            "PUT",
            f"/persistent/{topic}/partitions",
            {"partitions": partitions, "properties": properties},
            accept=(409,),
            content_type="application/vnd.partitioned-topic-metadata+json",
        )

    def properties(self, topic: str) -> dict[str, str]:
        """The properties that the topic was created with."""
        found: dict[str, str] = self.read(f"/persistent/{topic}/properties") or {}
        return found

    def register(self, topic: str, schema: str) -> None:
        """Register a schema. Raises SettingsError if it is not compatible with those before."""
        body = {"type": "AVRO", "schema": schema, "properties": {}}
        response = self.call("POST", f"/schemas/{topic}/schema", body, accept=(409, 422))
        if not response.is_success:
            raise SettingsError(
                f"Pulsar refuses the schema of {topic}: it is not compatible with those registered before.",
                cure="Types and fields stay; new fields have a default.",
            )

    def schema(self, topic: str, version: int) -> str:
        """The text of a registered schema."""
        response = self.call("GET", f"/schemas/{topic}/schema/{version}", accept=(NOT_FOUND,))
        if response.status_code == NOT_FOUND:
            raise LogUnavailable(
                f"The registry has no version {version} of the schema of {topic}, and messages were written with it.",
                cure="It was deleted: restore it. `magnetar doctor MODULE` says more.",
            )
        text: str = response.json()["data"]
        return text

    def let_trim(self, topic: str) -> None:
        """Let a topic of checkpoints drop what its keeper is past. Repeatable."""
        self.call("POST", f"/persistent/{topic}/retention", TRIMMED)

    def without_keeper(self, topic: str, partitions: int) -> list[int]:
        """The partitions of a topic of checkpoints that lack their subscription: of the topic, Pulsar tells all that
        any partition has. A partition that is not in use has no statistics."""
        found = by_partition(self.stats(topic))
        missing = [nth for nth in range(partitions) if KEEPER not in found.get(nth, {}).get("subscriptions", {})]
        return [nth for nth in missing if nth in found or KEEPER not in self.subscriptions(f"{topic}-partition-{nth}")]

    def create_keeper(self, topic: str, partitions: int) -> None:
        """Create the durable subscription of a topic of checkpoints, at the beginning of each partition. Repeatable."""
        self._create_keeper(topic)
        for nth in self.without_keeper(topic, partitions):  # of one that was made again
            self._create_keeper(f"{topic}-partition-{nth}")
        if lacking := self.without_keeper(topic, partitions):
            raise LogUnavailable(
                f"Pulsar did not create the subscription {KEEPER} of {topic} on the partitions {lacking}.",
                cure="Try again.",
            )

    def _create_keeper(self, topic: str) -> None:
        """Where two do so at once, or some partitions have it, Pulsar says so, or that a precondition does not hold."""
        self.call("PUT", f"/persistent/{topic}/subscription/{KEEPER}", _EARLIEST, accept=(CONFLICT, PRECONDITION))

    def move_keeper(self, partition_topic: str, through: MessageId) -> None:
        """Put the keeper behind this message."""
        body = {"ledgerId": through.ledger, "entryId": through.entry, "partitionIndex": -1, "isExcluded": True}
        self.call("POST", f"/persistent/{partition_topic}/subscription/{KEEPER}/resetcursor", body)

    def keeper(self, partition_topic: str) -> MessageId | None:
        """The message that the keeper stands behind; None if it has not been moved yet."""
        found = self.read(f"/persistent/{partition_topic}/internalStats") or {}
        place = found.get("cursors", {}).get(KEEPER, {}).get("markDeletePosition", "-1:-1")
        ledger, entry = (int(part) for part in place.split(":"))
        return None if entry < 0 else MessageId(ledger, entry, LAST_OF_BATCH)

    def last_message(self, partition_topic: str) -> MessageId | None:
        """The last message of a partition, None if it has none; in its entry, which is a batch, the last one."""
        response = self.call("GET", f"/persistent/{partition_topic}/lastMessageId", accept=(NOT_FOUND,))
        if not response.is_success:
            return None
        found = response.json()
        return None if found["entryId"] < 0 else MessageId(found["ledgerId"], found["entryId"], found["batchIndex"])

    def stats(self, topic: str) -> dict[str, Any]:
        """The statistics of a partitioned topic and of each partition that is in use."""
        path = f"/persistent/{topic}/partitioned-stats?perPartition=true&getPreciseBacklog=true"
        found: dict[str, Any] = self.read(path) or {}
        return found

    def internal_stats(self, topic: str) -> dict[str, Any]:
        """How each partition of a topic is stored, and how far its subscriptions are."""
        found: dict[str, Any] = self.read(f"/persistent/{topic}/partitioned-internalStats") or {}
        return found

    def has_acknowledged(self, partition_topic: str, subscription: str) -> bool:
        """Whether a message of the partition was ever acknowledged. A cursor that has passed a whole ledger stands
        before the first entry of the next."""
        found = self.read(f"/persistent/{partition_topic}/internalStats") or {}
        place = found.get("cursors", {}).get(subscription, {}).get("markDeletePosition", "-1:-1")
        ledger, entry = (int(part) for part in place.split(":"))
        first = min((each["ledgerId"] for each in found.get("ledgers", ())), default=ledger)
        return entry >= 0 or ledger > first

    def active_consumer(self, partition_topic: str, subscription: str) -> str | None:
        """The name of the consumer that the broker gives the partition's messages to."""
        response = self.call("GET", f"/persistent/{partition_topic}/stats", accept=(404,))
        if not response.is_success:
            return None
        found = response.json().get("subscriptions", {}).get(subscription, {}).get("activeConsumerName")
        return None if found is None else str(found)


def by_partition(stats: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The statistics of a partitioned topic, by partition."""
    return {int(name.rpartition("-")[2]): found for name, found in stats.get("partitions", {}).items()}


def no_tenant(tenant: str) -> SettingsError:
    """There is none of this name, and nobody who starts makes one: an empty log would be begun in a mistyped one."""
    return SettingsError(
        f"There is no tenant {tenant} on this Pulsar, and none is made at a start.",
        cure="Correct MAGNETAR_TENANT, or have the tenant made, by `magnetar provision MODULE`.",
    )


def _knows_us(response: httpx.Response) -> bool:
    """Whether it is the role that may not: Pulsar answers 401 to that too, and then gives a reason."""
    return "application/json" in response.headers.get("Content-Type", "")


def _reason(response: httpx.Response) -> str:
    """Pulsar's own words."""
    try:
        return str(response.json()["reason"])[:300]
    except (ValueError, KeyError, TypeError):
        return response.text[:300]
