"""What of a Pulsar's settings, as they are in effect, would lose a log, spoil it or hold it up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

from magnetar.schemas import AccessDenied, TopicKind
from magnetar.schemas.evolution import evolution

from ..preflight import MISSING, Finding, Severity
from ..provisioning import Roles, WantedTopic
from .pulsar_admin import INCARNATION, TRIMMED, PulsarAdmin
from .pulsar_plan import REPLIES_NAMESPACE, PulsarPlan, is_exempt, numbered
from .pulsar_policies import POLICIES, Policy, Runtime, age_quota, broker_persistence, effective

TESTED: Final = "4.0"
"""The version of Pulsar that the tests run on, without its patch level."""

OLDEST: Final = (3, 0)

CLOCK_WARNING_SECONDS: Final = 10.0
CLOCK_DANGER_SECONDS: Final = 300.0
"""Half the window in which a repeated command is known again: past it, commands would be parked as expired."""

_BROKER: Final = "broker"
GONE: Final = "gone"
"""What was there once, and cannot be made anew."""

_PROVISION: Final = "magnetar provision MODULE"


class PulsarPreflight:
    """Examines one tenant of a cluster."""

    def __init__(
        self, admin: PulsarAdmin, tenant: str, *, message_bytes_max: int, now_ms: Callable[[], int], exposed: bool
    ) -> None:
        """`exposed`: whether a token would go over the network in the clear."""
        self._admin = admin
        self._tenant = tenant
        self._message_bytes_max = message_bytes_max
        self._now_ms = now_ms
        self._exposed = exposed
        self._plan = PulsarPlan(admin, tenant)

    def findings(self, topics: Sequence[WantedTopic]) -> list[Finding]:
        """All findings, in the order in which they were looked for."""
        runtime = self._admin.runtime()
        found = [*self._connection(), *self._broker(runtime), *self._tenant_findings()]
        for context in sorted({wanted.topic.context for wanted in topics}):
            here = [wanted for wanted in topics if wanted.topic.context == context]
            found += self._namespace(f"{self._tenant}/{context}", here, runtime or {})
        return [*found, *self._replies()]

    # --- the cluster ------------------------------------------------------------------------------------------------

    def _connection(self) -> Iterator[Finding]:
        response = self._admin.call("GET", "/brokers/version")
        if self._exposed:
            yield Finding(
                Severity.WARNING, "encryption", _BROKER, "off", "on (TLS)", "everybody on the way can read the token",
                "MAGNETAR_BROKER=pulsar+ssl://… and MAGNETAR_BROKER_ADMIN=https://…",
            )  # fmt: skip
        if "Date" in response.headers:
            yield from clocks(parsedate_to_datetime(response.headers["Date"]).timestamp(), self._now_ms() / 1000)
        yield from versions(response.text.strip())

    def _broker(self, runtime: Runtime | None) -> Iterator[Finding]:
        if runtime is None:
            yield Finding(
                Severity.NOTE, "configuration", _BROKER, "hidden from this role", "known",
                "message size, quorum and what the broker sets by default are not checked",
                "magnetar doctor MODULE, with the token of an administrator",
            )  # fmt: skip
            return
        limit = int(runtime.get("maxMessageSize") or 0)
        if limit < self._message_bytes_max:
            yield Finding(
                Severity.DANGEROUS, "maxMessageSize", _BROKER, f"{limit:,} bytes", f"{5 * 2**20:,} bytes or more",
                "a commit that is larger cannot be stored, and its partition stands still",
                "broker.conf: maxMessageSize=5242880",
            )  # fmt: skip
        if runtime.get("topicLevelPoliciesEnabled") == "false":
            yield Finding(
                Severity.WARNING, "topicLevelPoliciesEnabled", _BROKER, "false", "true",
                "topics of checkpoints cannot be trimmed, and grow for ever",
                "broker.conf: topicLevelPoliciesEnabled=true",
            )  # fmt: skip
        if runtime.get("activeConsumerFailoverConsistentHashing") != "true":
            yield Finding(
                Severity.NOTE, "consistent hashing", _BROKER, "off", "on, where recoveries are long",
                "most partitions move as a worker comes or goes; with it, fewer, but some workers get more than others",
                "broker.conf: activeConsumerFailoverConsistentHashing=true",
            )  # fmt: skip
        if int(runtime.get("keepAliveIntervalSeconds") or 0) > 4:
            yield Finding(
                Severity.NOTE, "keepAliveIntervalSeconds", _BROKER, runtime["keepAliveIntervalSeconds"], "4",
                "the partitions of a worker whose machine is frozen or cut off wait twice that long",
                "broker.conf: keepAliveIntervalSeconds=4",
            )  # fmt: skip

    def _tenant_findings(self) -> Iterator[Finding]:
        if not self._admin.has_tenant(self._tenant):
            yield Finding(
                Severity.WARNING, "tenant", f"tenant {self._tenant}", MISSING, "there", "no worker starts",
                f"MAGNETAR_TENANT, if that is a slip; else {_PROVISION}",
            )  # fmt: skip

    # --- a namespace and its topics ---------------------------------------------------------------------------------

    def _namespace(self, namespace: str, topics: Sequence[WantedTopic], runtime: Runtime) -> Iterator[Finding]:
        try:
            own = self._admin.namespace(namespace)
        except AccessDenied:
            yield Finding(
                Severity.NOTE, "policies", f"namespace {namespace}", "hidden from this role", "known",
                "they are not checked", "magnetar doctor MODULE, with the token of an administrator",
            )  # fmt: skip
            own = None
        else:
            yield from policy_findings(namespace, own, runtime)
            if runtime:
                yield from self._quorum(namespace, own or {}, runtime)
        for wanted in topics:
            yield from self._topic(wanted, own, runtime)

    def _quorum(self, namespace: str, own: Mapping[str, Any], runtime: Runtime) -> Iterator[Finding]:
        bookies = self._admin.bookies()
        quorum = own.get("persistence") or broker_persistence(runtime)
        if bookies > 1 and int(quorum["bookkeeperAckQuorum"]) < 2:
            yield Finding(
                Severity.DANGEROUS, "acknowledging bookies", f"namespace {namespace}",
                str(quorum["bookkeeperAckQuorum"]), "2 or more",
                "commits that were confirmed are lost with one machine",
                f"pulsar-admin namespaces set-persistence {namespace} --bookkeeper-ensemble 3 "
                "--bookkeeper-write-quorum 3 --bookkeeper-ack-quorum 2 --ml-mark-delete-max-rate 10",
            )  # fmt: skip

    def _topic(self, wanted: WantedTopic, own: Mapping[str, Any] | None, runtime: Runtime) -> Iterator[Finding]:
        name = f"{self._tenant}/{wanted.topic}"
        partitions = self._admin.partitions(name)
        if partitions is None:
            yield from self._missing(name, "topic", wanted, range(wanted.partitions), "nothing can be sent or decided")
            return
        if partitions != wanted.partitions:
            yield Finding(
                Severity.DANGEROUS, "number of partitions", f"topic {name}", str(partitions), str(wanted.partitions),
                "aggregates are looked for where they do not live",
                f"Pipeline(…, partitions={partitions})" if partitions else f"pulsar-admin topics delete {name}",
            )  # fmt: skip
        if INCARNATION not in self._admin.properties(name):
            yield Finding(
                Severity.DANGEROUS, "incarnation", f"topic {name}", "none", "a UUID",
                "a topic that is made anew is not told from the old one, and its commands count as decided",
                _PROVISION,
            )  # fmt: skip
        try:
            if missing := self._admin.missing_partitions(name, partitions):
                yield from self._missing(name, numbered(missing), wanted, missing, "nothing is sent or decided there")
            yield from self._topic_policies(name, wanted, own, runtime)
            if wanted.topic.kind is TopicKind.CHECKPOINTS:
                yield from self._trimming(name, partitions)
        except AccessDenied:
            pass  # said of the namespace already
        yield from self._schema(name, wanted)

    def _missing(
        self, name: str, what: str, wanted: WantedTopic, partitions: Sequence[int], lost: str
    ) -> Iterator[Finding]:
        """What provisioning makes, or, where commands were decided, what nobody can make anew."""
        try:
            is_gone = bool(self._plan.gone(wanted, partitions))
        except AccessDenied:
            is_gone = False
        if is_gone:
            yield Finding(
                Severity.DANGEROUS, what, f"topic {name}", GONE, "there",
                "what was decided there is lost, and no more is decided",
                "restore the topic from a backup; `magnetar plan MODULE` says more",
            )  # fmt: skip
        else:
            yield Finding(Severity.WARNING, what, f"topic {name}", MISSING, "there", lost, _PROVISION)

    def _topic_policies(
        self, name: str, wanted: WantedTopic, own: Mapping[str, Any] | None, runtime: Runtime
    ) -> Iterator[Finding]:
        """The policies in effect on the topic, where it is not the namespace that is to blame."""
        for policy in POLICIES:
            if policy.topic_path is None or is_exempt(policy, wanted):
                continue
            now = self._admin.topic_policy(name, policy.topic_path, applied=True)
            blamed = own is not None and not policy.is_fine(effective(policy, own, runtime))
            if now is not None and not policy.is_fine(now) and not blamed:
                severity = Severity.WARNING if policy.is_stricter(now) else policy.severity
                is_its_own = self._admin.topic_policy(name, policy.topic_path) not in (None, {})
                namespace = name.rpartition("/")[0]
                yield Finding(
                    severity, policy.name, f"topic {name}", policy.show(now), policy.must, policy.lost,
                    policy.removing(name) if is_its_own else policy.mending(namespace, now),
                )  # fmt: skip

    def _trimming(self, name: str, partitions: int) -> Iterator[Finding]:
        if self._admin.topic_policy(name, "retention") != TRIMMED or self._admin.without_keeper(name, partitions):
            yield Finding(
                Severity.WARNING, "trimming", f"topic {name}", "off", "by the keeper", "old checkpoints stay for ever",
                _PROVISION,
            )  # fmt: skip

    def _schema(self, name: str, wanted: WantedTopic) -> Iterator[Finding]:
        registered = self._admin.schemas(name)
        found = evolution([each.text for each in registered if each.type == "AVRO"], wanted.schema)
        if registered and registered[0].version > 0:
            yield Finding(
                Severity.WARNING,
                "schema",
                f"topic {name}",
                f"deleted up to version {registered[0].version - 1}",
                "whole",
                "what was written with those versions cannot be read, and its partitions stand still",
                "restore the registry: a version that is registered again gets another number",
            )
        for refusal in found.refused:
            yield Finding(
                Severity.DANGEROUS, "schema", f"topic {name}", f"{refusal.path}: {refusal.what}", "compatible",
                "what stands in the log would be read wrongly", refusal.cure,
            )  # fmt: skip
        if not found.known and not found.refused:
            yield Finding(
                Severity.WARNING, "schema", f"topic {name}", "not registered", "registered",
                "nothing can be written with it", _PROVISION,
            )  # fmt: skip

    def _replies(self) -> Iterator[Finding]:
        namespace = f"{self._tenant}/{REPLIES_NAMESPACE}"
        try:
            own = self._admin.namespace(namespace)
        except AccessDenied:
            return
        subject, lost = f"namespace {namespace}", "nobody who asks gets an answer"
        if own is None:
            yield Finding(Severity.WARNING, "namespace", subject, MISSING, "there", lost, _PROVISION)
        elif not (own.get("autoTopicCreationOverride") or {}).get("allowAutoTopicCreation"):
            mend = f"pulsar-admin namespaces set-auto-topic-creation {namespace} --enable --type non-partitioned"
            yield Finding(Severity.WARNING, "automatic topic creation", subject, "off", "on", lost, mend)


def policy_findings(namespace: str, own: Mapping[str, Any] | None, runtime: Runtime) -> Iterator[Finding]:
    """What a namespace's policies, or the broker's where it has none, would do to a log."""
    subject = f"namespace {namespace}"
    if own is None:
        subject += " (missing: the broker's defaults)"
    for policy in POLICIES:
        now = effective(policy, own or {}, runtime)
        if (own is None and not runtime) or policy.is_fine(now):
            continue
        if policy.key == "persistence" and not runtime and not (own or {}).get(policy.key):
            continue
        yield Finding(
            _severity(policy, own or {}, now), policy.name, subject, policy.show(now), policy.must, policy.lost,
            _PROVISION if own is None else policy.mending(namespace, now),
        )  # fmt: skip
    yield from _age_findings(namespace, subject, own or {}, runtime)


def _age_findings(namespace: str, subject: str, own: Mapping[str, Any], runtime: Runtime) -> Iterator[Finding]:
    """A quota by age is found and not set back: it is none of the broker's by itself, so that somebody wants it."""
    seconds, then = age_quota(own, runtime)
    if seconds > 0:
        yield Finding(
            Severity.WARNING if then.startswith("producer_") else Severity.DANGEROUS,
            "backlog quota by age", subject, f"{seconds} s, then {then}", "no limit",
            "behind a worker that stood still for so long, the broker takes no more commands, or drops waiting ones",
            f"pulsar-admin namespaces set-backlog-quota {namespace} --type message_age --limitTime -1 --policy "
            "producer_exception",
        )  # fmt: skip


def rights_findings(admin: PulsarAdmin, tenant: str, topics: Sequence[WantedTopic], roles: Roles) -> Iterator[Finding]:
    """Which rights the roles lack on the topics that are there. A worker's own role may not look, nor need it."""
    plan = PulsarPlan(admin, tenant)
    try:
        there = [wanted for wanted in topics if admin.partitions(f"{tenant}/{wanted.topic}")]
        lacking = [right for wanted in there for right in plan.topic_rights(wanted, roles)]
        if admin.namespace(f"{tenant}/{REPLIES_NAMESPACE}") is not None:
            lacking += plan.reply_rights([wanted for wanted in topics if not wanted.reader], roles)
    except AccessDenied:
        yield Finding(
            Severity.NOTE, "rights", f"tenant {tenant}", "hidden from this role", "known", "they are not checked",
            "magnetar doctor MODULE, with the token of an administrator",
        )  # fmt: skip
        return
    for right in lacking:
        yield Finding(
            Severity.WARNING, f"the right of {right.role} to {right.missing}", right.subject, MISSING, "given",
            "the broker refuses it that", _PROVISION,
        )  # fmt: skip


def _severity(policy: Policy, own: Mapping[str, Any], now: Any) -> Severity:
    """What somebody has decided for this namespace, and loses nothing, is only warned of."""
    return Severity.WARNING if own.get(policy.key) and policy.is_stricter(now) else policy.severity


def clocks(theirs_seconds: float, ours_seconds: float) -> Iterator[Finding]:
    """How far the broker's clock, which tells whole seconds, is from ours."""
    off = ours_seconds - theirs_seconds
    if abs(off) > CLOCK_WARNING_SECONDS:
        yield Finding(
            Severity.DANGEROUS if abs(off) > CLOCK_DANGER_SECONDS else Severity.WARNING,
            "clock", _BROKER, f"{abs(off):.0f} s {'behind' if off > 0 else 'ahead of'} this machine's",
            f"within {CLOCK_WARNING_SECONDS:g} s", "commands are parked as expired, or repeats are not known again",
            "synchronize both clocks (chrony, systemd-timesyncd)",
        )  # fmt: skip


def versions(broker: str) -> Iterator[Finding]:
    """Whether Magnetar was tested with this broker."""
    numbers = re.match(r"(\d+)\.(\d+)", broker)
    parsed = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if parsed < OLDEST:
        yield Finding(
            Severity.WARNING, "version", _BROKER, broker, f"{TESTED}", "fences and policies may not work as tested",
            f"upgrade Pulsar to {TESTED}",
        )  # fmt: skip
    elif not broker.startswith(f"{TESTED}."):
        yield Finding(
            Severity.NOTE, "version", _BROKER, broker, f"{TESTED}", "Magnetar was not tested with it",
            "try it with a copy of your data first",
        )  # fmt: skip
