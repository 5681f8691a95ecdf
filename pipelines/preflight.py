"""Looking before writing: what of the log's settings would lose it, spoil it or hold it up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from magnetar.schemas import AccessDenied, LogUnavailable, LogUnsafe

if TYPE_CHECKING:
    from .log import Log
    from .pipeline import Pipeline
    from .provisioning import Roles, WantedTopic


class Severity(StrEnum):
    """How much a finding matters."""

    DANGEROUS = "dangerous"
    """Something would be lost, or the pipeline would stand still: no worker starts."""
    WARNING = "warning"
    """Something costs time or safety, and should be mended."""
    NOTE = "note"
    """Worth knowing; a doctor calls it clean all the same."""


MISSING: Final = "missing"
"""What is found where something is not there: `magnetar provision` makes it."""


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    severity: Severity
    check: str
    subject: str
    found: str
    wanted: str
    lost: str
    """What would be lost, or what happens."""
    mend: str
    """The command or setting that mends it."""

    def __str__(self) -> str:
        should = "better" if self.severity is Severity.NOTE else "and must be"
        return f"{self.subject}: {self.check} is {self.found}, {should} {self.wanted}; otherwise {self.lost}."

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return self._asdict()


@runtime_checkable
class Examined(Protocol):
    """A log that can be examined; the simulated one cannot, and has nothing to find."""

    def examine(self, topics: Sequence[WantedTopic]) -> list[Finding]:
        """What is not as it should be, of the log and of these topics."""
        ...


@runtime_checkable
class GivesRights(Protocol):
    """A log that gives rights to roles; the embedded one knows none."""

    def examine_rights(self, topics: Sequence[WantedTopic], roles: Roles) -> list[Finding]:
        """Which rights the roles lack on the topics that are there."""
        ...


def examine(pipeline: Pipeline, log: Log) -> list[Finding]:
    """What is not as it should be, the most dangerous first."""
    from .provisioning import wanted_topics

    found = log.examine(wanted_topics(pipeline)) if isinstance(log, Examined) else []
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def examine_read(pipeline: Pipeline, log: Log) -> Iterator[Finding]:
    """What is not as it should be of other contexts' topics from which the pipeline's projections take events."""
    from .provisioning import read_topics

    for wanted in read_topics(pipeline):
        subject, of = f"topic {wanted.topic}", wanted.topic.context
        try:
            partitions = log.describe(wanted.topic).partitions
        except AccessDenied:  # a worker does not read it, and need not be able to: the plan has the rights
            continue
        except LogUnavailable:
            yield Finding(
                Severity.WARNING, "topic", subject, "not there yet", "there",
                f"its events are waited for: {of} makes it", f"magnetar provision, with the module of {of}",
            )  # fmt: skip
            continue
        if partitions != wanted.partitions:
            yield Finding(
                Severity.WARNING, "number of partitions", subject, str(partitions), str(wanted.partitions),
                "nothing is taken from it", f"declare {of} here with the partitions that it has",
            )  # fmt: skip


def examine_rights(pipeline: Pipeline, log: Log, roles: Roles) -> list[Finding]:
    """Which rights the roles lack: an administrator can look, and for a role without a name there is none to give."""
    from .provisioning import read_topics, wanted_topics

    topics = [*wanted_topics(pipeline), *read_topics(pipeline)]
    return log.examine_rights(topics, roles) if isinstance(log, GivesRights) and any(roles.values()) else []


def refuse_dangers(findings: Sequence[Finding], *, of: str) -> None:
    """Raise LogUnsafe if one of the findings is dangerous, with all that are."""
    dangers = [finding for finding in findings if finding.severity is Severity.DANGEROUS]
    if dangers:
        listed = "".join(f"\n  {finding}\n    {finding.mend}" for finding in dangers)
        raise LogUnsafe(
            f"{of} is not safe here:{listed}\n",
            cure="`magnetar doctor MODULE` shows it all, and `magnetar provision MODULE` mends most of it.",
            findings=tuple(dangers),
        )
