"""The steps from what a Pulsar has to what a pipeline needs of it. Reading only; each step says how it is done."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from magnetar.schemas import TopicKind
from magnetar.schemas.evolution import evolution

from ..provisioning import READERS_RIGHTS, RIGHTS, Roles, Sign, Step, WantedTopic
from .pulsar_admin import INCARNATION, KEEPER, TRIMMED, WORKERS, PulsarAdmin
from .pulsar_policies import POLICIES, REPLIES, Policy, Runtime, effective, new_namespace, says

REPLIES_NAMESPACE: Final = "magnetar-replies"
"""The namespace of the inboxes. No context can have this name: a context's has no hyphen."""

_GONE: Final = (
    "it is gone, and commands were decided: a new one would be an empty log. "
    "Restore it; to begin anew, delete the command topic too"
)
_PARTITIONS_GONE: Final = "gone, and commands were decided there: new ones would be empty logs. Restore the topic"
_SHOWN_MAX: Final = 6
HIDDEN: Final = "the broker's, which this role may not see"


class Right(NamedTuple):
    """What a role lacks on a topic or in a namespace."""

    subject: str
    path: str
    """Where the admin API has its permissions."""
    role: str
    missing: str
    actions: list[str]
    """All that it may then do there."""


class PulsarPlan:
    """What is planned for one tenant."""

    def __init__(self, admin: PulsarAdmin, tenant: str) -> None:
        self._admin = admin
        self._tenant = tenant

    def steps(self, topics: Sequence[WantedTopic], roles: Roles) -> list[Step]:
        """All steps, in the order in which they are done."""
        read, topics = [each for each in topics if each.reader], [each for each in topics if not each.reader]
        contexts = sorted({wanted.topic.context for wanted in topics})
        steps = [*self._tenant_steps()]
        for context in contexts:
            steps += self.namespace_steps(f"{self._tenant}/{context}")
        steps += self.reply_steps()
        for wanted in topics:
            steps += self.topic_steps(wanted)
        for wanted in topics:
            steps += self._grants(self.topic_rights(wanted, roles))
        for wanted in read:
            steps += self._reading_steps(wanted, roles)
        return [*steps, *self._grants(self.reply_rights(topics, roles))]

    def _tenant_steps(self) -> Iterator[Step]:
        if not self._admin.has_tenant(self._tenant):
            clusters = self._admin.clusters()
            yield Step(
                Sign.CREATE,
                f"tenant {self._tenant}",
                f"on {', '.join(clusters)}",
                lambda: self._admin.create_tenant(self._tenant, clusters),
            )

    # --- namespaces -------------------------------------------------------------------------------------------------

    def namespace_steps(self, namespace: str) -> Iterator[Step]:
        """A new namespace with all its policies in one call, or the policies of one that is there."""
        found = self._admin.namespace(namespace)
        runtime = self._admin.runtime()
        if found is None:
            policies = new_namespace(runtime)
            shown = "".join(f"\n{p.name} {p.show(policies[p.key])}" for p in POLICIES if p.key in policies)
            yield Step(
                Sign.CREATE,
                f"namespace {namespace}",
                f"with all its policies in one call{shown}",
                lambda: self._admin.create_namespace(namespace, policies),
            )
            return
        for policy in POLICIES:
            if runtime is not None or policy.key != "persistence":
                yield from self._policy_steps(policy, namespace, found, runtime)

    def _policy_steps(
        self, policy: Policy, namespace: str, found: Mapping[str, Any], runtime: Runtime | None
    ) -> Iterator[Step]:
        """Sets what is not as it must be, and what is the broker's where it cannot be seen."""
        is_hidden = runtime is None and not says(policy, found)
        now = effective(policy, found, runtime or {})
        if policy.is_fine(now) and not is_hidden:
            return
        subject = f"namespace {namespace}"
        if found.get(policy.key) and policy.is_stricter(now):
            loosen = f"to have {policy.must}: {policy.mending(namespace, now)}"
            yield Step(Sign.KEEP, subject, f"{policy.name} stays {policy.show(now)}; {loosen}")
            return
        wanted = policy.wanted(now)
        yield Step(
            Sign.CHANGE,
            subject,
            f"{policy.name} {HIDDEN if is_hidden else policy.show(now)} → {policy.show(wanted)}",
            lambda: self._admin.call(policy.method, f"/namespaces/{namespace}/{policy.path}", policy.body(wanted)),
        )

    def reply_steps(self) -> Iterator[Step]:
        """The namespace of the inboxes, in which a topic is made by subscribing to it."""
        namespace = f"{self._tenant}/{REPLIES_NAMESPACE}"
        found = self._admin.namespace(namespace)
        if found is None:
            yield Step(
                Sign.CREATE,
                f"namespace {namespace}",
                "automatic topic creation on, nothing stored",
                lambda: self._admin.create_namespace(namespace, {"autoTopicCreationOverride": REPLIES}),
            )
        elif not (found.get("autoTopicCreationOverride") or {}).get("allowAutoTopicCreation"):
            yield Step(
                Sign.CHANGE,
                f"namespace {namespace}",
                "automatic topic creation off or by the broker → on",
                lambda: self._admin.call("POST", f"/namespaces/{namespace}/autoTopicCreation", REPLIES),
            )

    # --- topics -----------------------------------------------------------------------------------------------------

    def topic_steps(self, wanted: WantedTopic) -> Iterator[Step]:
        """A topic with its incarnation, trimming if it is of checkpoints, and the schema."""
        name = f"{self._tenant}/{wanted.topic}"
        partitions = self._admin.partitions(name)
        if partitions is None and self.gone(wanted, range(wanted.partitions)):
            yield Step(Sign.REFUSED, f"topic {name}", _GONE)
            return
        if partitions is None:
            yield Step(
                Sign.CREATE,
                f"topic {name}",
                f"{wanted.partitions} partitions",
                lambda: self._admin.create_topic(name, wanted.partitions, {INCARNATION: str(uuid.uuid4())}),
            )
        elif partitions != wanted.partitions:
            yield Step(Sign.REFUSED, f"topic {name}", _wrong_partitions(partitions, wanted.partitions))
            return
        elif INCARNATION not in self._admin.properties(name):
            yield Step(
                Sign.CHANGE,
                f"topic {name}",
                "incarnation none → a new one",
                lambda: self._admin.set_properties(name, {INCARNATION: str(uuid.uuid4())}),
            )
        if partitions is not None:
            yield from self._missing_partitions_steps(name, wanted)
            yield from self._topic_policy_steps(name, wanted)
        if wanted.topic.kind is TopicKind.CHECKPOINTS:
            yield from self._trimming_steps(name, wanted.partitions, is_new=partitions is None)
        yield from self._schema_steps(name, wanted, is_new=partitions is None)

    def _missing_partitions_steps(self, name: str, wanted: WantedTopic) -> Iterator[Step]:
        """Partitions that were deleted one by one, or that a broker that died had not made yet."""
        missing = self._admin.missing_partitions(name, wanted.partitions)
        if gone := self.gone(wanted, missing):
            yield Step(Sign.REFUSED, f"topic {name}", f"{numbered(gone)}: {_PARTITIONS_GONE}")
        elif missing:
            shown = f"{numbered(missing)} missing → made"
            yield Step(Sign.CHANGE, f"topic {name}", shown, lambda: self._admin.create_missing_partitions(name))

    def gone(self, wanted: WantedTopic, missing: Sequence[int]) -> list[int]:
        """Of the missing partitions, those that were logs: commands were decided there, and each leaves a commit."""
        if wanted.topic.kind is not TopicKind.EVENTS:
            return []
        commands = f"{self._tenant}/{wanted.topic._replace(kind=TopicKind.COMMANDS)}"
        return [nth for nth in missing if self._admin.has_acknowledged(f"{commands}-partition-{nth}", WORKERS)]

    def _topic_policy_steps(self, name: str, wanted: WantedTopic) -> Iterator[Step]:
        """A topic's own policies, where it has any that are not those of a log: they win over the namespace's."""
        for policy in POLICIES:
            if policy.topic_path is None or is_exempt(policy, wanted):
                continue
            now = self._admin.topic_policy(name, policy.topic_path)
            if now in (None, {}) or policy.is_fine(now):
                continue
            if policy.is_stricter(now):
                yield Step(Sign.KEEP, f"topic {name}", f"{policy.name} stays {policy.show(now)}")
                continue
            path = policy.path.replace("deduplication", "deduplicationEnabled")
            value = policy.wanted(now)
            yield Step(
                Sign.CHANGE,
                f"topic {name}",
                f"its own {policy.name} {policy.show(now)} → {policy.show(value)}",
                partial(self._admin.call, policy.method, f"/persistent/{name}/{path}", policy.body(value)),
            )

    def _trimming_steps(self, name: str, partitions: int, *, is_new: bool) -> Iterator[Step]:
        if is_new or self._admin.topic_policy(name, "retention") != TRIMMED:
            yield Step(
                Sign.CREATE,
                f"topic {name}",
                "a cache: retention of its own, nothing behind its keeper",
                lambda: self._admin.let_trim(name),
            )
        if is_new or self._admin.without_keeper(name, partitions):
            yield Step(
                Sign.CREATE,
                f"topic {name}",
                f"subscription {KEEPER}",
                lambda: self._admin.create_keeper(name, partitions),
            )

    def _schema_steps(self, name: str, wanted: WantedTopic, *, is_new: bool) -> Iterator[Step]:
        registered = [] if is_new else self._admin.schemas(name)
        foreign = sorted({found.type for found in registered if found.type != "AVRO"})
        if foreign:
            yield Step(Sign.REFUSED, f"schema of {name}", f"it has a schema of the type {', '.join(foreign)}, not AVRO")
            return
        found = evolution([each.text for each in registered], wanted.schema)
        for refusal in found.refused:
            yield Step(Sign.REFUSED, f"schema of {name}", str(refusal))
        if found.refused or found.known:
            return
        yield Step(
            Sign.CREATE,
            f"schema of {name}",
            _new_schema(found.added, is_first=not registered),
            lambda: self._admin.register(name, wanted.schema),
        )

    def _reading_steps(self, wanted: WantedTopic, roles: Roles) -> Iterator[Step]:
        """Of a topic that another context makes, the right to read it."""
        name = f"{self._tenant}/{wanted.topic}"
        partitions = self._admin.partitions(name)
        if partitions is None:
            yield Step(Sign.KEEP, f"topic {name}", wanted.awaited)
        elif partitions != wanted.partitions:
            yield Step(Sign.REFUSED, f"topic {name}", _wrong_partitions(partitions, wanted.partitions))
        else:
            yield from self._grants(self.topic_rights(wanted, roles))

    # --- rights -----------------------------------------------------------------------------------------------------

    def topic_rights(self, wanted: WantedTopic, roles: Roles) -> Iterator[Right]:
        """The rights that the roles lack on a topic."""
        name = f"{self._tenant}/{wanted.topic}"
        granted: Mapping[str, Sequence[str]] | None = None
        for part, actions in (READERS_RIGHTS if wanted.reader else RIGHTS[wanted.topic.kind]).items():
            if role := _role(roles, part, wanted):
                if granted is None:
                    granted = self._admin.topic_permissions(name) or {}
                yield from _lacking(f"topic {name}", f"/persistent/{name}", role, actions, granted)

    def reply_rights(self, topics: Sequence[WantedTopic], roles: Roles) -> Iterator[Right]:
        """The rights that the roles lack on the inboxes."""
        namespace = f"{self._tenant}/{REPLIES_NAMESPACE}"
        wanted = {
            (role, action): None
            for topic in topics
            for part, action in (("worker", "produce"), ("client", "consume"))
            if (role := _role(roles, part, topic))
        }
        granted = self._admin.namespace_permissions(namespace) or {} if wanted else {}
        for role in {role: None for role, _ in wanted}:
            actions = [action for who, action in wanted if who == role]
            yield from _lacking(f"namespace {namespace}", f"/namespaces/{namespace}", role, actions, granted)

    def _grants(self, rights: Iterator[Right]) -> Iterator[Step]:
        for right in rights:
            yield Step(
                Sign.CREATE,
                right.subject,
                f"role {right.role} may {right.missing}",
                partial(self._admin.call, "POST", f"{right.path}/permissions/{right.role}", right.actions),
            )


def numbered(partitions: Sequence[int]) -> str:
    """Which partitions, as people write it."""
    return f"partition{'s' if len(partitions) > 1 else ''} {', '.join(map(str, partitions))}"


def is_exempt(policy: Policy, wanted: WantedTopic) -> bool:
    """A topic of checkpoints is a cache: what is behind its keeper may go."""
    return wanted.topic.kind is TopicKind.CHECKPOINTS and policy.name in ("retention", "time to live", "backlog quota")


def _role(roles: Roles, part: str, wanted: WantedTopic) -> str:
    from magnetar.schemas.names import kebab

    role = roles.get(part, "").replace("{context}", wanted.reader or wanted.topic.context)
    return role.replace("{aggregate}", kebab(wanted.topic.aggregate))


def _lacking(
    subject: str, path: str, role: str, actions: Sequence[str], granted: Mapping[str, Sequence[str]]
) -> Iterator[Right]:
    has = granted.get(role, ())
    if missing := [action for action in actions if action not in has]:
        yield Right(subject, path, role, " and ".join(missing), sorted({*has, *actions}))


def _wrong_partitions(found: int, wanted: int) -> str:
    has = f"it has {found} partitions" if found else "it has no partitions: it was made by using it, or by hand"
    return f"{has}, and the pipeline declares {wanted}; the number decides where each aggregate lives, and stays"


def _new_schema(added: Sequence[str], *, is_first: bool) -> str:
    if is_first:
        return "its first version"
    if not added:
        return "a new version, of which older releases notice nothing"
    more = f" and {len(added) - _SHOWN_MAX} more" if len(added) > _SHOWN_MAX else ""
    return f"a new version with {', '.join(added[:_SHOWN_MAX])}{more}"
