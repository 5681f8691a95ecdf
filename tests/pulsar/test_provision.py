"""What is planned and done on a Pulsar, what is left alone, and what is refused."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.preflight import Severity
from magnetar.pipelines.provisioning import Sign, Step, WantedTopic, apply
from magnetar.schemas import LogUnavailable, LogUnsafe, SettingsError, Topic, TopicKind

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, WIDER, entries
from tests.pulsar_rig import Existing, free_ports

Call = Callable[..., Any]


@pytest.fixture
def call(broker: Existing) -> Iterator[Call]:
    """One call of the admin API, which must succeed: `call("GET", "namespaces/…")`."""
    with httpx.Client(base_url=f"{broker.admin_url}/admin/v2/", timeout=30) as client:

        def one(method: str, path: str, body: object = None) -> Any:
            response = client.request(method, path, **({} if body is None else {"json": body}))  # type: ignore[arg-type]
            response.raise_for_status()
            return response.json() if response.text else None

        yield one


@pytest.fixture
def log(open_log: Callable[..., PulsarLog]) -> PulsarLog:
    return open_log()


@pytest.fixture
def context() -> str:
    return f"c{uuid.uuid4().hex[:12]}"


def wanted(context: str, *, partitions: int = 2, schema: str = SCHEMA) -> list[WantedTopic]:
    """The three topics of one aggregate."""
    return [WantedTopic(Topic(context, "Thing", kind), partitions, schema) for kind in TopicKind]


def signs(steps: list[Step]) -> set[Sign]:
    return {step.sign for step in steps}


def dangers(log: PulsarLog, context: str) -> dict[str, str]:
    """The dangerous findings of a context: what is looked at, and how it is."""
    found = log.examine(wanted(context))
    return {each.check: each.found for each in found if each.severity is Severity.DANGEROUS}


DEFAULT_DANGERS = {
    "retention": "0 min, 0 MB",
    "deletion of inactive topics": "on",
    "backlog quota": "10 GiB, then producer_request_hold",
    "automatic topic creation": "on",
    "schema compatibility": "FULL",
    "schema validation": "off",
}


@pytest.mark.parametrize("namespace", ["missing", "made by hand"])
def test_each_dangerous_default_is_found_and_provisioning_mends_it(
    log: PulsarLog, call: Call, context: str, namespace: str
) -> None:
    if namespace == "made by hand":
        call("PUT", f"namespaces/public/{context}")
    assert dangers(log, context) == DEFAULT_DANGERS
    apply(log.plan(wanted(context), {}))
    assert [each for each in log.examine(wanted(context)) if each.severity is not Severity.NOTE] == []
    assert log.plan(wanted(context), {}) == []


def test_a_broker_that_is_not_there_is_said_at_once(broker: Existing) -> None:
    (port,) = free_ports(1)
    with pytest.raises(LogUnavailable, match="does not answer"):
        PulsarLog(f"pulsar://127.0.0.1:{port}", f"http://127.0.0.1:{port}", clock=SystemClock())


def test_a_new_namespace_keeps_everything_with_the_clusters_own_quorum(
    log: PulsarLog, call: Call, context: str
) -> None:
    apply(log.plan(wanted(context), {}))
    policies = call("GET", f"namespaces/public/{context}")
    runtime = call("GET", "brokers/configuration/runtime")
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


def test_a_worker_creates_nothing_in_a_namespace_that_would_lose_the_log(
    log: PulsarLog, call: Call, context: str
) -> None:
    call("PUT", f"namespaces/public/{context}")
    with pytest.raises(LogUnsafe, match=f"namespace public/{context}: retention is 0 min, 0 MB"):
        log.provision(Topic(context, "Thing", TopicKind.EVENTS), partitions=1, schema=SCHEMA)
    assert call("GET", f"persistent/public/{context}/partitioned") == []


def test_what_is_stricter_is_left_and_the_plan_says_so(log: PulsarLog, call: Call, context: str) -> None:
    quota = {"limitSize": 2**30, "limitTime": -1, "policy": "producer_exception"}
    call("PUT", f"namespaces/public/{context}", {"schema_compatibility_strategy": "ALWAYS_INCOMPATIBLE"})
    call("POST", f"namespaces/public/{context}/backlogQuota?backlogQuotaType=destination_storage", quota)
    kept = [str(step) for step in log.plan(wanted(context), {}) if step.sign is Sign.KEEP]
    assert [line.split(";")[0] for line in kept] == [
        f"= namespace public/{context}: backlog quota stays 1 GiB, then producer_exception",
        f"= namespace public/{context}: schema compatibility stays ALWAYS_INCOMPATIBLE",
    ]
    apply([step for step in log.plan(wanted(context), {}) if step.subject.startswith("namespace")])
    policies = call("GET", f"namespaces/public/{context}")
    assert policies["backlog_quota_map"]["destination_storage"]["limitSize"] == 2**30
    assert policies["schema_compatibility_strategy"] == "ALWAYS_INCOMPATIBLE"
    assert dangers(log, context) == {}


def test_an_interrupted_provisioning_goes_on_where_it_was(log: PulsarLog, context: str) -> None:
    planned = log.plan(wanted(context), {})
    done = 0
    while steps := log.plan(wanted(context), {}):
        apply(steps[:1])
        done += 1
        assert done <= len(planned)
    assert done == len(planned)


def test_many_that_provision_the_same_at_once_all_come_up(open_log: Callable[..., PulsarLog]) -> None:
    """The broker tells some of them that the keeper is busy: another one is just making it."""
    logs = [open_log() for _ in range(6)]
    for _ in range(3):
        context, together = f"c{uuid.uuid4().hex[:12]}", threading.Barrier(len(logs))

        def provision(log: PulsarLog, context: str = context, together: threading.Barrier = together) -> None:
            together.wait()
            for topic, partitions, schema, _ in wanted(context, partitions=4):
                log.provision(topic, partitions=partitions, schema=schema)

        with ThreadPoolExecutor(len(logs)) as threads:
            list(threads.map(provision, logs))
        assert logs[0].plan(wanted(context, partitions=4), {}) == []


def test_a_topic_with_a_policy_of_its_own_is_found_and_mended(log: PulsarLog, call: Call, context: str) -> None:
    apply(log.plan(wanted(context), {}))
    topic = f"persistent/public/{context}/thing-events"
    call(
        "POST",
        f"{topic}/inactiveTopicPolicies",
        {
            "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
            "maxInactiveDurationSeconds": 60,
            "deleteWhileInactive": True,
        },
    )
    assert dangers(log, context) == {"deletion of inactive topics": "on"}
    (step,) = log.plan(wanted(context), {})
    assert str(step) == f"~ topic public/{context}/thing-events: its own deletion of inactive topics on → off"
    apply([step])
    assert dangers(log, context) == {}


def test_another_number_of_partitions_is_refused_and_nothing_done(log: PulsarLog, call: Call, context: str) -> None:
    apply(log.plan(wanted(context), {})[:3])
    steps = log.plan(wanted(context, partitions=4), {})
    with pytest.raises(SettingsError, match="it has 2 partitions, and the pipeline declares 4") as error:
        apply(steps)
    assert error.value.cure == "Nothing was changed. Mend these first."
    assert len(call("GET", f"persistent/public/{context}/partitioned")) == 1
    assert "number of partitions" in {each.check for each in log.examine(wanted(context, partitions=4))}


def test_a_topic_that_was_made_by_using_it_is_refused(log: PulsarLog, call: Call, context: str) -> None:
    topic = Topic(context, "Thing", TopicKind.EVENTS)
    apply(log.plan([WantedTopic(topic, 2, SCHEMA)], {})[:1])
    call("PUT", f"persistent/public/{context}/thing-events")
    with pytest.raises(LogUnavailable, match="no partitions"):
        log.describe(topic)
    (step,) = [step for step in log.plan([WantedTopic(topic, 2, SCHEMA)], {}) if step.sign is Sign.REFUSED]
    assert "made by using it, or by hand" in step.detail


def test_a_topic_without_an_incarnation_gets_one_before_it_is_used(log: PulsarLog, call: Call, context: str) -> None:
    topic = Topic(context, "Thing", TopicKind.COMMANDS)
    apply(log.plan([WantedTopic(topic, 2, SCHEMA)], {})[:1])
    call("PUT", f"persistent/public/{context}/thing-commands/partitions", 2)
    with pytest.raises(LogUnavailable, match="no incarnation"):
        log.describe(topic)
    apply(log.plan([WantedTopic(topic, 2, SCHEMA)], {}))
    incarnation = log.describe(topic).incarnation
    assert str(uuid.UUID(incarnation)) == incarnation


def test_a_schema_that_cannot_follow_is_refused_with_its_place(log: PulsarLog, context: str) -> None:
    apply(log.plan(wanted(context), {}))
    text = SCHEMA.replace('"long"', '"double"')
    steps = log.plan(wanted(context, schema=text), {})
    assert signs(steps) == {Sign.REFUSED}
    assert "R.x: was int, is float." in str(steps[0])
    assert dangers(log, context) == {}
    found = log.examine(wanted(context, schema=text))
    assert "R.x: was int, is float" in {each.found for each in found if each.severity is Severity.DANGEROUS}


def test_a_new_version_says_what_is_new(log: PulsarLog, context: str) -> None:
    apply(log.plan(wanted(context), {}))
    steps = log.plan(wanted(context, schema=WIDER), {})
    assert str(steps[0]) == f"+ schema of public/{context}/thing-commands: a new version with R.y"


def test_where_workers_may_not_evolve_schemas_an_administrator_does(log: PulsarLog, call: Call, context: str) -> None:
    topic = Topic(context, "Thing", TopicKind.EVENTS)
    apply(log.plan(wanted(context), {}))
    call("POST", f"namespaces/public/{context}/isAllowAutoUpdateSchema", False)
    log.provision(topic, partitions=2, schema=SCHEMA)
    with pytest.raises(SettingsError, match="does not let workers register schemas"):
        log.provision(topic, partitions=2, schema=WIDER)
    with pytest.raises(SettingsError, match="does not take this schema"):
        log.fence(topic, 0, schema=WIDER, name="worker")
    apply(log.plan(wanted(context, schema=WIDER), {}))
    log.provision(topic, partitions=2, schema=WIDER)
    log.fence(topic, 0, schema=WIDER, name="worker").append(entries(1), timeout_seconds=DEADLINE_SECONDS)


def test_a_deleted_schema_is_missed_by_name(log: PulsarLog, call: Call, context: str) -> None:
    topic = Topic(context, "Thing", TopicKind.EVENTS)
    apply(log.plan(wanted(context), {}))
    call("DELETE", f"schemas/public/{context}/thing-events/schema")
    apply(log.plan(wanted(context), {}))
    with pytest.raises(LogUnavailable, match=f"no version 0 of the schema of public/{context}/thing-events"):
        log.schema(topic, 0)
    assert "deleted up to version 1" in {each.found for each in log.examine(wanted(context))}


def test_schemas_are_found_above_number_127_and_fetched_once(
    open_log: Callable[..., PulsarLog], log: PulsarLog, call: Call, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 128 on, the client's public accessor of a message's schema version raises UnicodeDecodeError."""
    topic = Topic(context, "Thing", TopicKind.EVENTS)
    log.provision(topic, partitions=1, schema=SCHEMA)
    fields = json.loads(SCHEMA)["fields"]
    text = SCHEMA
    for number in range(1, 131):
        fields.append({"name": f"y{number}", "type": ["null", "long"], "default": None})
        text = json.dumps({"type": "record", "name": "R", "fields": fields})
        body = {"type": "AVRO", "schema": text, "properties": {}}
        call("POST", f"schemas/public/{context}/thing-events/schema", body)
    log.fence(topic, 0, schema=text, name="worker").append(entries(1), timeout_seconds=DEADLINE_SECONDS)
    (message,) = log.reader(topic, 0, after=None).read(messages_max=10, timeout_seconds=DEADLINE_SECONDS)
    assert message.schema == 130
    reading = open_log()
    asked: list[int] = []
    ask = reading._admin.schema

    def counted(name: str, number: int) -> str:
        asked.append(number)
        return ask(name, number)

    monkeypatch.setattr(reading._admin, "schema", counted)
    for number in (130, 130, 129, 130):
        assert ('"y130"' in reading.schema(topic, number)) is (number == 130)
    assert asked == [130, 129]
