"""The few calls of Pulsar's admin API that the log needs."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx
from magnetar.schemas import LogUnavailable, SettingsError

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
    "persistence": {
        "bookkeeperEnsemble": 1,
        "bookkeeperWriteQuorum": 1,
        "bookkeeperAckQuorum": 1,
        "managedLedgerMaxMarkDeleteRate": 10.0,
    },
}
"""A namespace that keeps a log: nothing is deleted, nothing is created by accident, resends are dropped."""

REPLY_POLICIES: Final[dict[str, Any]] = {
    "autoTopicCreationOverride": {"allowAutoTopicCreation": True, "topicType": "non-partitioned"},
}


class PulsarAdmin:
    """A thin client of the admin API. Raises LogUnavailable for what the broker does not do."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url.rstrip('/')}/admin/v2", timeout=30.0)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(self, method: str, path: str, body: Any = None, *, accept: tuple[int, ...] = ()) -> httpx.Response:
        """One call; `accept` are the codes that are no failure besides 2xx."""
        try:
            response = self._client.request(method, path, json=body)
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

    def ensure_namespace(self, namespace: str, policies: dict[str, Any]) -> None:
        """Create tenant and namespace if they are missing; all policies in one call."""
        tenant, _, _ = namespace.partition("/")
        if self.call("GET", f"/tenants/{tenant}", accept=(404,)).status_code == httpx.codes.NOT_FOUND.value:
            clusters = self.call("GET", "/clusters").json()
            self.call("PUT", f"/tenants/{tenant}", {"allowedClusters": clusters, "adminRoles": []}, accept=(409,))
        self.call("PUT", f"/namespaces/{namespace}", policies, accept=(409,))

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None if it does not exist."""
        response = self.call("GET", f"/persistent/{topic}/partitions", accept=(404,))
        if response.status_code == httpx.codes.NOT_FOUND.value:
            return None
        return int(response.json()["partitions"])

    def create_topic(self, topic: str, partitions: int, properties: dict[str, str]) -> None:
        """Create a partitioned topic with properties."""
        body = {"partitions": partitions, "properties": properties}
        path = f"/persistent/{topic}/partitions"
        try:
            response = self._client.put(
                path,
                content=json.dumps(body),
                headers={"Content-Type": "application/vnd.partitioned-topic-metadata+json"},
                params={"createLocalTopicOnly": "false"},
            )
        except httpx.HTTPError as error:
            raise LogUnavailable(f"Pulsar's admin API does not answer: {error}.") from error
        if not response.is_success and response.status_code != httpx.codes.CONFLICT.value:
            raise LogUnavailable(f"Pulsar did not create {topic}: {response.status_code} {response.text[:300]}")

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

    def active_consumer(self, partition_topic: str, subscription: str) -> str | None:
        """The name of the consumer that the broker gives the partition's messages to."""
        response = self.call("GET", f"/persistent/{partition_topic}/stats", accept=(404,))
        if not response.is_success:
            return None
        found = response.json().get("subscriptions", {}).get(subscription, {}).get("activeConsumerName")
        return None if found is None else str(found)
