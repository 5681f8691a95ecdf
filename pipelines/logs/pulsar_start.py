"""What a worker may do to a Pulsar at its start: create what is missing, and nothing else."""

from __future__ import annotations

from magnetar.schemas import AccessDenied, SettingsError
from magnetar.schemas.evolution import check_evolution

from ..preflight import refuse_dangers
from ..provisioning import Sign, WantedTopic, apply
from .pulsar_admin import INCARNATION, PulsarAdmin, no_tenant
from .pulsar_plan import PulsarPlan
from .pulsar_preflight import policy_findings


class PulsarStart:
    """Provisions one topic with the rights that a worker may have, which may be none."""

    def __init__(self, admin: PulsarAdmin, tenant: str) -> None:
        self._admin = admin
        self._tenant = tenant
        self._plan = PulsarPlan(admin, tenant)

    def provision(self, wanted: WantedTopic) -> None:
        """Look first: a worker whose topics are there needs no rights but those to use them.

        1. Nothing, if topic and schema are as they should be. 2. Refuses a namespace that would lose the log.
        3. Creates namespace, topic and schema, as far as they are missing; never a tenant, which is made by name alone.
        """
        try:
            if not self._is_there(wanted):
                self._create(wanted)
        except AccessDenied as error:
            raise AccessDenied(
                f"{wanted.topic} or its schema is missing or hidden, and this role may not make it. {error.what}",
                cure="Have `magnetar provision MODULE` run by an administrator.",
            ) from error

    def _is_there(self, wanted: WantedTopic) -> bool:
        name = f"{self._tenant}/{wanted.topic}"
        if self._admin.partitions(name) != wanted.partitions or INCARNATION not in self._admin.properties(name):
            return False
        registered = [each.text for each in self._admin.schemas(name) if each.type == "AVRO"]
        return check_evolution(str(wanted.topic), registered, wanted.schema).known

    def _create(self, wanted: WantedTopic) -> None:
        if not self._admin.has_tenant(self._tenant):
            raise no_tenant(self._tenant)
        namespace = f"{self._tenant}/{wanted.topic.context}"
        found = self._admin.namespace(namespace)
        if found is not None:
            refuse_dangers(list(policy_findings(namespace, found, self._admin.runtime() or {})), of=str(wanted.topic))
        steps = self._plan.steps([wanted], {})
        is_evolving = any(step.sign is Sign.CREATE and step.subject.startswith("schema of ") for step in steps)
        if found is not None and is_evolving and found.get("is_allow_auto_update_schema") is False:
            raise SettingsError(
                f"{namespace} does not let workers register schemas, and this schema of {wanted.topic} is not there.",
                cure="Have `magnetar provision MODULE` run by an administrator.",
            )
        apply([step for step in steps if step.sign in (Sign.CREATE, Sign.REFUSED)])
