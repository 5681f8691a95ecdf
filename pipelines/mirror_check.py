"""Whether tables can be filled from the mirror in place of the topics: what can never be, and what is not just now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial

from magnetar.projections import Sql
from magnetar.projections.contracts import contract_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Generations
from magnetar.projections.mirror_source import Reach
from magnetar.projections.range_loop import pass_over
from magnetar.projections.store import Store
from magnetar.schemas import ReadRule, SettingsError, StoreUnavailable, TopicKind, wire_name
from magnetar.schemas.derive import record_of

from .log import Log
from .pipeline import Pipeline
from .table_kinds import mirror_source
from .targets import Target, projection_of, targets_of


def from_mirror(pipeline: Pipeline) -> list[str]:
    """All that has a table and comes from the own mirrors alone. Raises SettingsError if there is nothing."""
    targets = targets_of(pipeline).items()
    if found := [name for name, target in targets if target.projection != MIRROR and not _foreign(pipeline, target)]:
        return found
    raise SettingsError(
        f"The pipeline {pipeline.name!r} has no projection with a table.",
        cure="Leave `--from mirror` away: the mirror itself comes from the topics.",
    )


def refuse_mirrored(pipeline: Pipeline, names: Iterable[str]) -> None:
    """Raise SettingsError for what the mirror cannot fill, however whole it is."""
    targets = targets_of(pipeline)
    for name in names:
        if targets[name].projection == MIRROR:
            raise SettingsError(
                f"{name} is the mirror itself, which comes from the topics alone.",
                cure="Leave `--from mirror` away, or name projections.",
            )
        if foreign := _foreign(pipeline, targets[name]):
            raise SettingsError(
                f"{name} takes events of {foreign[0]}, and {pipeline.name} has no mirror of another context.",
                cure="Leave `--from mirror` away.",
            )
        _refuse_defaults(name, projection_of(pipeline, targets[name].projection))


def _foreign(pipeline: Pipeline, target: Target) -> list[str]:
    """Whose events a target takes that are of another context."""
    return [aggregate for aggregate in target.aggregates if aggregate not in pipeline.aggregates]


def _refuse_defaults(name: str, projection: type[object]) -> None:
    """Rows of commits that had no such field yet have another value than the event that is read from the log."""
    if issubclass(projection, Sql):
        return  # it is computed by ClickHouse, from the topics as well
    for event in contract_of(projection).events:
        if (path := record_of(event).only_in_python()) is not None:
            raise SettingsError(
                f"{name} takes {wire_name(event)}, and the default of its field {path} is one that only Python can "
                "say: events that had no such field yet are other ones in the mirror.",
                cure="Leave `--from mirror` away.",
            )


def check_mirrors(
    pipeline: Pipeline, store: Store, log: Log, targets: Iterable[Target], read: Callable[[Target], Generations]
) -> None:
    """Compare the mirrors that targets would be filled from with what they have written down, and with the log.

    Raises StoreUnavailable, naming aggregate, partition and commit, for the first one that does not fit.
    """
    mirrors = targets_of(pipeline)
    for aggregate in dict.fromkeys(aggregate for target in targets for aggregate in target.aggregates):
        shown = read(mirrors[aggregate]).shown
        source = mirror_source(pipeline, store, aggregate, partial(int, shown))
        for partition in range(pipeline.partitions):
            reach = source.verified(partition)
            if reach.last >= reach.mark.expected:
                _check_log(pipeline, log, aggregate, partition, reach)


def _check_log(pipeline: Pipeline, log: Log, aggregate: str, partition: int, reach: Reach) -> None:
    """The log has to give what the mirror took in last, with the numbers that the mirror has of it."""
    topic = pipeline.topic(aggregate, TopicKind.EVENTS)
    rule = ReadRule(reach.mark.owner, reach.mark.expected)
    with closing(log.reader(topic, partition, after=reach.mark.after)) as reader:
        pass_over(reader, rule, reach.last + 1, after=reach.mark.after)
    if rule.expected <= reach.last:
        raise StoreUnavailable(
            f"The mirror of {aggregate} has {reach.last} commits on partition {partition}, and the log gives none "
            f"behind {rule.expected - 1}: nothing can be rebuilt from it.",
            cure="Was the log put back to an older copy than the tables? Restore both from one copy.",
            partition=partition,
        )
