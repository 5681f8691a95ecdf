"""What is created on a Pulsar, and what is refused."""

import json
import uuid
from collections.abc import Callable

import httpx
import pytest
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import SettingsError, Topic, TopicKind

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, entries
from tests.pulsar_rig import Existing


def admin(broker: Existing, method: str, path: str) -> httpx.Response:
    """One call of the admin API."""
    response = httpx.request(method, f"{broker.admin_url}/admin/v2/{path}", timeout=30)
    response.raise_for_status()
    return response


def test_a_namespace_that_would_lose_the_log_is_refused(broker: Existing, open_log: Callable[..., PulsarLog]) -> None:
    topic = Topic(f"c{uuid.uuid4().hex[:12]}", "Thing", TopicKind.EVENTS)
    admin(broker, "PUT", f"namespaces/public/{topic.context}")
    with pytest.raises(SettingsError, match="retention must be unlimited"):
        open_log().provision(topic, partitions=1, schema=SCHEMA)
    assert admin(broker, "GET", f"persistent/public/{topic.context}/partitioned").json() == []


def test_a_new_namespace_keeps_everything_with_the_clusters_own_quorum(
    broker: Existing, new_topic: Callable[..., Topic]
) -> None:
    policies = admin(broker, "GET", f"namespaces/public/{new_topic(TopicKind.EVENTS).context}").json()
    runtime = admin(broker, "GET", "brokers/configuration/runtime").json()
    assert policies["retention_policies"] == {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
    assert policies["inactive_topic_policies"]["deleteWhileInactive"] is False
    assert policies["schema_compatibility_strategy"] == "FULL_TRANSITIVE"
    assert policies["backlog_quota_map"]["destination_storage"]["limitSize"] == -1
    assert policies["persistence"] == {
        "bookkeeperEnsemble": int(runtime["managedLedgerDefaultEnsembleSize"]),
        "bookkeeperWriteQuorum": int(runtime["managedLedgerDefaultWriteQuorum"]),
        "bookkeeperAckQuorum": int(runtime["managedLedgerDefaultAckQuorum"]),
        "managedLedgerMaxMarkDeleteRate": 10.0,
    }


def test_schemas_are_found_above_number_127(
    open_log: Callable[..., PulsarLog], new_topic: Callable[..., Topic]
) -> None:
    """From 128 on, the client's public accessor of a message's schema version raises UnicodeDecodeError."""
    log, topic = open_log(), new_topic(TopicKind.EVENTS)
    fields = json.loads(SCHEMA)["fields"]
    text = SCHEMA
    for number in range(1, 131):
        fields.append({"name": f"y{number}", "type": ["null", "long"], "default": None})
        text = json.dumps({"type": "record", "name": "R", "fields": fields})
        log.provision(topic, partitions=1, schema=text)
    log.fence(topic, 0, schema=text, name="worker").append(entries(1), timeout_seconds=DEADLINE_SECONDS)
    (message,) = log.reader(topic, 0, after=None).read(messages_max=10, timeout_seconds=DEADLINE_SECONDS)
    assert message.schema == 130
    assert '"y130"' in log.schema(topic, message.schema)
    assert '"y130"' not in log.schema(topic, 129)
