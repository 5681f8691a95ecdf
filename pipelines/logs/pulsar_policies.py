"""The policies of a namespace that keeps logs: what each must be, what would be lost otherwise, and how it is set.

Provisioning and preflight read the same table, so that what one mends the other finds mended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..preflight import Severity

Runtime = Mapping[str, str]
"""The broker's configuration, as it runs: texts."""

FOREVER: Final = {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
STRATEGY: Final = "FULL_TRANSITIVE"
MARK_DELETES_PER_SECOND: Final = 10.0
"""How often a subscription's place is stored. With a standalone's default of one in ten seconds, 671 acknowledged
messages came again after a kill; with ten a second, none."""

_RATE: Final = "managedLedgerMaxMarkDeleteRate"
_QUORUM: Final = {
    "bookkeeperEnsemble": "managedLedgerDefaultEnsembleSize",
    "bookkeeperWriteQuorum": "managedLedgerDefaultWriteQuorum",
    "bookkeeperAckQuorum": "managedLedgerDefaultAckQuorum",
}
_INACTIVE_SECONDS: Final = 3600


class Policy(NamedTuple):
    """One policy. A value is what the admin API gives for it, None where it gives nothing."""

    name: str
    key: str
    """Where it stands among a namespace's policies."""
    path: str
    """Its place in the admin API, below a namespace."""
    topic_path: str | None
    """Its place below a topic, whose own value wins over the namespace's; None if a topic has none."""
    method: str
    of_broker: Callable[[Runtime], Any]
    """What holds where the namespace says nothing."""
    is_fine: Callable[[Any], bool]
    is_stricter: Callable[[Any], bool]
    """Whether a value that is not fine is somebody's decision for less: it is left as it is, and warned of."""
    wanted: Callable[[Any], Any]
    """The value to set, given what holds now."""
    must: str
    lost: str
    severity: Severity
    mend: str
    """The arguments of pulsar-admin; {of} is the namespace, and {now} the value that holds."""

    def mending(self, namespace: str, now: Any) -> str:
        """What sets it on a namespace where this value holds, for people to type."""
        return f"pulsar-admin {self.mend.format(of=namespace, now=now)}"

    def removing(self, topic: str) -> str:
        """What takes a topic's own value away, so that the namespace's holds."""
        setting = self.mend.split()[1]
        return f"pulsar-admin topicPolicies {setting.replace('set-', 'remove-', 1)} persistent://{topic}"

    def body(self, value: Any) -> Any:
        """What is sent to set it alone."""
        return value[_DESTINATION] if self.key == "backlog_quota_map" else value

    def show(self, value: Any) -> str:
        """A value for people."""
        return _SHOW.get(self.name, _plain)(value)


_DESTINATION: Final = "destination_storage"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _show_retention(value: Any) -> str:
    return f"{value['retentionTimeInMinutes']} min, {value['retentionSizeInMB']} MB"


def _show_inactive(value: Any) -> str:
    return "on" if value["deleteWhileInactive"] else "off"


def _show_backlog(value: Any) -> str:
    quota = value.get(_DESTINATION, {})
    size = quota.get("limitSize", -1)
    return "no limit" if size < 0 else f"{size / 2**30:g} GiB, then {quota['policy']}"


def _show_creation(value: Any) -> str:
    return "on" if value["allowAutoTopicCreation"] else "off"


def _show_switch(value: Any) -> str:
    return "on" if value else "off"


_SHOW: Final[dict[str, Callable[[Any], str]]] = {
    "retention": _show_retention,
    "deletion of inactive topics": _show_inactive,
    "time to live": lambda value: f"{value or 0} s",
    "backlog quota": _show_backlog,
    "automatic topic creation": _show_creation,
    "schema validation": _show_switch,
    "deduplication": _show_switch,
    "stored acknowledgements": lambda value: f"{value[_RATE]:g} per second",
    "expiry of subscriptions": lambda value: f"{value or 0} min",
}


def _never(_: Any) -> bool:
    return False


def _flag(name: str) -> Callable[[Runtime], bool]:
    return lambda runtime: runtime.get(name, "false") == "true"


def _number(name: str) -> Callable[[Runtime], int]:
    return lambda runtime: int(runtime.get(name) or 0)


def _broker_quota(runtime: Runtime) -> dict[str, Any]:
    size = int(runtime.get("backlogQuotaDefaultLimitBytes") or -1)
    if size <= 0:
        size = int(float(runtime.get("backlogQuotaDefaultLimitGB") or -1) * 2**30)
    policy = runtime.get("backlogQuotaDefaultRetentionPolicy", "producer_request_hold")
    return {_DESTINATION: {"limitSize": size if size > 0 else -1, "limitTime": -1, "policy": policy}}


def _quota_is_fine(value: Any) -> bool:
    quota = value.get(_DESTINATION) or {}
    return bool(quota.get("limitSize", -1) < 0 and quota.get("limitTime", -1) < 0)


def age_quota(own: Mapping[str, Any], runtime: Runtime) -> tuple[int, str]:
    """The seconds that a command may wait, none above 0 for ever, and what the broker does then. We set none."""
    quota = (own.get("backlog_quota_map") or {}).get("message_age")
    if quota is not None:
        return int(quota.get("limitTime", -1)), str(quota.get("policy", ""))
    policy = runtime.get("backlogQuotaDefaultRetentionPolicy", "producer_request_hold")
    return int(runtime.get("backlogQuotaDefaultLimitSecond") or -1), policy


def _quota_holds(value: Any) -> bool:
    """A limit at which producers are stopped, not messages dropped."""
    return all(str(quota.get("policy", "")).startswith("producer_") for quota in value.values())


def broker_persistence(runtime: Runtime) -> dict[str, Any]:
    """Quorum and rate where a namespace says nothing."""
    quorum = {policy: int(runtime.get(setting) or 1) for policy, setting in _QUORUM.items()}
    return {**quorum, _RATE: float(runtime.get("managedLedgerDefaultMarkDeleteRateLimit") or 0)}


POLICIES: Final = (
    Policy(
        name="retention",
        key="retention_policies",
        path="retention",
        topic_path="retention",
        method="POST",
        of_broker=lambda runtime: {
            "retentionTimeInMinutes": int(runtime.get("defaultRetentionTimeInMinutes") or 0),
            "retentionSizeInMB": int(runtime.get("defaultRetentionSizeInMB") or 0),
        },
        is_fine=lambda value: all(value.get(key) == -1 for key in FOREVER),
        is_stricter=_never,
        wanted=lambda _: dict(FOREVER),
        must="unlimited (-1 min, -1 MB)",
        lost="the log itself is deleted, commit after commit",
        severity=Severity.DANGEROUS,
        mend="namespaces set-retention {of} --time -1 --size -1",
    ),
    Policy(
        name="deletion of inactive topics",
        key="inactive_topic_policies",
        path="inactiveTopicPolicies",
        topic_path="inactiveTopicPolicies",
        method="POST",
        of_broker=lambda runtime: {"deleteWhileInactive": _flag("brokerDeleteInactiveTopicsEnabled")(runtime)},
        is_fine=lambda value: value.get("deleteWhileInactive") is False,
        is_stricter=_never,
        wanted=lambda _: {
            "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
            "maxInactiveDurationSeconds": _INACTIVE_SECONDS,
            "deleteWhileInactive": False,
        },
        must="off",
        lost="a topic that nobody reads for a minute is deleted with all its commits",
        severity=Severity.DANGEROUS,
        mend="namespaces set-inactive-topic-policies {of} --disable-delete-while-inactive --max-inactive-duration 1h "
        "--delete-mode delete_when_no_subscriptions",
    ),
    Policy(
        name="time to live",
        key="message_ttl_in_seconds",
        path="messageTTL",
        topic_path="messageTTL",
        method="POST",
        of_broker=_number("ttlDurationDefaultInSeconds"),
        is_fine=lambda value: not value or value < 0,
        is_stricter=_never,
        wanted=lambda _: 0,
        must="0 s (off)",
        lost="commands that wait longer are never decided",
        severity=Severity.DANGEROUS,
        mend="namespaces set-message-ttl {of} --messageTTL 0",
    ),
    Policy(
        name="backlog quota",
        key="backlog_quota_map",
        path="backlogQuota?backlogQuotaType=destination_storage",
        topic_path="backlogQuotaMap",
        method="POST",
        of_broker=_broker_quota,
        is_fine=_quota_is_fine,
        is_stricter=_quota_holds,
        wanted=lambda _: {_DESTINATION: {"limitSize": -1, "limitTime": -1, "policy": "producer_exception"}},
        must="no limit",
        lost="at the limit the broker takes no more commands, or, with consumer_backlog_eviction, drops waiting ones",
        severity=Severity.DANGEROUS,
        mend="namespaces set-backlog-quota {of} --limit -1 --policy producer_exception",
    ),
    Policy(
        name="automatic topic creation",
        key="autoTopicCreationOverride",
        path="autoTopicCreation",
        topic_path=None,
        method="POST",
        of_broker=lambda runtime: {"allowAutoTopicCreation": _flag("allowAutoTopicCreation")(runtime)},
        is_fine=lambda value: value.get("allowAutoTopicCreation") is False,
        is_stricter=_never,
        wanted=lambda _: {"allowAutoTopicCreation": False},
        must="off",
        lost="a missing topic is made by using it, without partitions, and takes commands that nobody reads",
        severity=Severity.DANGEROUS,
        mend="namespaces set-auto-topic-creation {of} --disable",
    ),
    Policy(
        name="schema compatibility",
        key="schema_compatibility_strategy",
        path="schemaCompatibilityStrategy",
        topic_path="schemaCompatibilityStrategy",
        method="PUT",
        of_broker=lambda runtime: runtime.get("schemaCompatibilityStrategy", "FULL"),
        is_fine=lambda value: value == STRATEGY,
        is_stricter=lambda value: value == "ALWAYS_INCOMPATIBLE",
        wanted=lambda _: STRATEGY,
        must=STRATEGY,
        lost="a schema can be registered that reads older commits wrongly, or not at all",
        severity=Severity.DANGEROUS,
        mend=f"namespaces set-schema-compatibility-strategy {{of}} --compatibility {STRATEGY}",
    ),
    Policy(
        name="schema validation",
        key="schema_validation_enforced",
        path="schemaValidationEnforced",
        topic_path=None,
        method="POST",
        of_broker=_flag("isSchemaValidationEnforced"),
        is_fine=lambda value: value is True,
        is_stricter=_never,
        wanted=lambda _: True,
        must="on",
        lost="a producer without a schema can put anything on an event topic, and its partition stands still",
        severity=Severity.DANGEROUS,
        mend="namespaces set-schema-validation-enforce {of} --enable",
    ),
    Policy(
        name="deduplication",
        key="deduplicationEnabled",
        path="deduplication",
        topic_path="deduplicationEnabled",
        method="POST",
        of_broker=_flag("brokerDeduplicationEnabled"),
        is_fine=lambda value: value is True,
        is_stricter=_never,
        wanted=lambda _: True,
        must="on",
        lost="messages stand twice in the log after a reconnect (readers drop them; it costs space)",
        severity=Severity.WARNING,
        mend="namespaces set-deduplication {of} --enable",
    ),
    Policy(
        name="stored acknowledgements",
        key="persistence",
        path="persistence",
        topic_path="persistence",
        method="POST",
        of_broker=broker_persistence,
        is_fine=lambda value: value[_RATE] >= MARK_DELETES_PER_SECOND,
        is_stricter=_never,
        wanted=lambda value: {**value, _RATE: MARK_DELETES_PER_SECOND},
        must=f"{MARK_DELETES_PER_SECOND:g} per second or more",
        lost="after a broker's death commands of many seconds are given again (none is decided twice; it costs time)",
        severity=Severity.WARNING,
        mend="namespaces set-persistence {of} --bookkeeper-ensemble {now[bookkeeperEnsemble]} "
        "--bookkeeper-write-quorum {now[bookkeeperWriteQuorum]} --bookkeeper-ack-quorum {now[bookkeeperAckQuorum]} "
        f"--ml-mark-delete-max-rate {MARK_DELETES_PER_SECOND:g}",
    ),
    Policy(
        name="expiry of subscriptions",
        key="subscription_expiration_time_minutes",
        path="subscriptionExpirationTime",
        topic_path=None,
        method="POST",
        of_broker=_number("subscriptionExpirationTimeMinutes"),
        is_fine=lambda value: not value or value < 0,
        is_stricter=_never,
        wanted=lambda _: 0,
        must="0 min (off)",
        lost="after a pause the workers' places are gone: all commands are given again, and checkpoints are dropped",
        severity=Severity.WARNING,
        mend="namespaces set-subscription-expiration-time {of} --time 0",
    ),
)

REPLIES: Final = {"allowAutoTopicCreation": True, "topicType": "non-partitioned"}
"""An inbox is a topic that is made by subscribing to it."""


def says(policy: Policy, namespace: Mapping[str, Any]) -> bool:
    """Whether the namespace has a policy of its own, and not the broker's."""
    own = namespace.get(policy.key)
    return own is not None and own not in ("UNDEFINED", {})


def effective(policy: Policy, namespace: Mapping[str, Any], runtime: Runtime) -> Any:
    """What holds on a namespace: its own policy, or the broker's."""
    own = namespace.get(policy.key)
    broker = policy.of_broker(runtime)
    if not says(policy, namespace):
        return broker
    if isinstance(own, bool) and policy.key == "schema_validation_enforced":
        return own or broker
    return own


def new_namespace(runtime: Runtime | None) -> dict[str, Any]:
    """All policies of a new namespace, for one call. Without the broker's configuration, its quorums are left alone."""
    return {
        policy.key: policy.wanted(policy.of_broker(runtime or {}))
        for policy in POLICIES
        if runtime is not None or policy.key != "persistence"
    }
