"""The few calls of Pulsar's admin API that the log needs."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx
from magnetar.schemas import LogUnavailable, MessageId, SettingsError

TIMEOUT_SECONDS: Final = 15.0

OK: Final = 200
NOT_FOUND: Final = 404
CONFLICT: Final = 409
KEEPER: Final = "keeper"
_EARLIEST: Final = {"ledgerId": -1, "entryId": -1, "partitionIndex": -1}
_FOREVER: Final = {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
LOG_POLICIES: Final[dict[str, Any]] = {
    "retention_policies": _FOREVER,
    "inactive_topic_policies": {
        "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
        "maxInactiveDurationSeconds": 3600,
        "deleteWhileInactive": False,
    },
    "schema_compatibility_strategy": "FULL_TRANSITIVE",
    "schema_validation_enforced": True,
    "autoTopicCreationOverride": {"allowAutoTopicCreation": False},
    "deduplicationEnabled": True,
    "message_ttl_in_seconds": 0,
    "backlog_quota_map": {"destination_storage": {"limitSize": -1, "limitTime": -1, "policy": "producer_exception"}},
}
"""A namespace that keeps a log: nothing is deleted, nothing is created by accident, resends are dropped, and a backlog
holds nobody up (the broker's default would, from 10 GB on)."""

MARK_DELETES_PER_SECOND_MAX: Final = 10.0
"""How often a subscription's place is stored. With a standalone's default of one in ten seconds, 671 acknowledged
messages came again after a kill; with ten a second, none."""

_QUORUM: Final = {
    "bookkeeperEnsemble": "managedLedgerDefaultEnsembleSize",
    "bookkeeperWriteQuorum": "managedLedgerDefaultWriteQuorum",
    "bookkeeperAckQuorum": "managedLedgerDefaultAckQuorum",
}

REPLY_POLICIES: Final[dict[str, Any]] = {
    "autoTopicCreationOverride": {"allowAutoTopicCreation": True, "topicType": "non-partitioned"},
}


class PulsarAdmin:
    """A thin client of the admin API. Raises LogUnavailable for what the broker does not do."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url.rstrip('/')}/admin/v2", timeout=TIMEOUT_SECONDS)

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
            response = self._client.request(method, path, content=content, headers={"Content-Type": content_type})
        except httpx.HTTPError as error:
            raise LogUnavailable(
                f"Pulsar's admin API at {self._client.base_url} does not answer: {error}.",
                cure="Check MAGNETAR_BROKER_ADMIN, and that the broker runs.",
            ) from error
        if response.is_success or response.status_code in accept:
            return response
        raise LogUnavailable(
            f"Pulsar answered {response.status_code} to {method} {path}: {response.text[:300]}",
            cure="Check the rights and the settings of the cluster.",
        )

    def ensure_log_namespace(self, namespace: str) -> None:
        """Create a namespace that keeps logs, if it is missing. Raises SettingsError if there is one that does not."""
        if not self._create_namespace(namespace, LOG_POLICIES | self._persistence()):
            found = self.call("GET", f"/namespaces/{namespace}").json()
            if dangers := _dangers(found):
                raise SettingsError(
                    f"The namespace {namespace} exists, and its policies are not those of a log: {', '.join(dangers)}.",
                    cure="Set them with pulsar-admin, or give the pipeline a name of its own.",
                    namespace=namespace,
                )

    def ensure_reply_namespace(self, namespace: str) -> None:
        """Create the namespace for replies if it is missing."""
        self._create_namespace(namespace, REPLY_POLICIES)

    def _create_namespace(self, namespace: str, policies: dict[str, Any]) -> bool:
        """Create tenant and namespace, all policies in one call; whether the namespace was missing."""
        if self._status("GET", f"/namespaces/{namespace}") == OK:
            return False
        tenant, _, _ = namespace.partition("/")
        if self._status("GET", f"/tenants/{tenant}") == NOT_FOUND:
            clusters = self.call("GET", "/clusters").json()
            self.call("PUT", f"/tenants/{tenant}", {"allowedClusters": clusters, "adminRoles": []}, accept=(409,))
        return self.call("PUT", f"/namespaces/{namespace}", policies, accept=(409,)).is_success

    def _status(self, method: str, path: str) -> int:
        return self.call(method, path, accept=(404,)).status_code

    def _persistence(self) -> dict[str, Any]:
        """The cluster's own quorum, which can only be set together with the rate; nothing if we may not ask for it."""
        response = self.call("GET", "/brokers/configuration/runtime", accept=(401, 403))
        if not response.is_success:
            return {}
        runtime = response.json()
        quorum = {policy: int(runtime[setting]) for policy, setting in _QUORUM.items()}
        return {"persistence": {**quorum, "managedLedgerMaxMarkDeleteRate": MARK_DELETES_PER_SECOND_MAX}}

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None if it does not exist."""
        response = self.call("GET", f"/persistent/{topic}/partitions", accept=(404,))
        if response.status_code == NOT_FOUND:
            return None
        return int(response.json()["partitions"])

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
        found: dict[str, str] = self.call("GET", f"/persistent/{topic}/properties").json()
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
        response = self.call("GET", f"/schemas/{topic}/schema/{version}")
        text: str = response.json()["data"]
        return text

    def let_trim(self, topic: str) -> None:
        """Let a topic of checkpoints drop what its durable subscription `keeper` is past. Repeatable."""
        self.call("POST", f"/persistent/{topic}/retention", {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0})
        self.call("PUT", f"/persistent/{topic}/subscription/{KEEPER}", _EARLIEST, accept=(CONFLICT,))

    def move_keeper(self, partition_topic: str, through: MessageId) -> None:
        """Put the keeper behind this message."""
        body = {"ledgerId": through.ledger, "entryId": through.entry, "partitionIndex": -1, "isExcluded": True}
        self.call("POST", f"/persistent/{partition_topic}/subscription/{KEEPER}/resetcursor", body)

    def last_message(self, partition_topic: str) -> MessageId | None:
        """The last entry of a partition, None if it has none."""
        response = self.call("GET", f"/persistent/{partition_topic}/lastMessageId", accept=(NOT_FOUND,))
        if not response.is_success:
            return None
        found = response.json()
        return None if found["entryId"] < 0 else MessageId(found["ledgerId"], found["entryId"], -1)

    def active_consumer(self, partition_topic: str, subscription: str) -> str | None:
        """The name of the consumer that the broker gives the partition's messages to."""
        response = self.call("GET", f"/persistent/{partition_topic}/stats", accept=(404,))
        if not response.is_success:
            return None
        found = response.json().get("subscriptions", {}).get(subscription, {}).get("activeConsumerName")
        return None if found is None else str(found)


def _dangers(policies: dict[str, Any]) -> list[str]:
    """What of a namespace's policies would lose a log, or let things into it by accident."""
    retention = policies.get("retention_policies") or {}
    inactive = policies.get("inactive_topic_policies") or {}
    creation = policies.get("autoTopicCreationOverride") or {}
    safe = {
        "retention must be unlimited in time and size (-1, -1)": all(retention.get(key) == -1 for key in _FOREVER),
        "inactive topics must not be deleted": inactive.get("deleteWhileInactive") is False,
        "messages must not expire (message TTL 0)": not policies.get("message_ttl_in_seconds"),
        "topics must not be created by use": creation.get("allowAutoTopicCreation") is False,
        "schemas must be compatible FULL_TRANSITIVE": policies.get("schema_compatibility_strategy")
        == LOG_POLICIES["schema_compatibility_strategy"],
        "deduplication must be on": policies.get("deduplicationEnabled") is True,
    }
    return [what for what, holds in safe.items() if not holds]
