"""How a pipeline is doing: what is undecided, who decides, how far the tables are behind. It only looks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, Final

import msgspec
from magnetar.aggregates.checkpoint import find_rounds
from magnetar.projections.progress import Ask, furthest_places, incarnations, mirrored
from magnetar.projections.progress import places as mirror_places
from magnetar.schemas import MagnetarError, MessageId, ReadRule, StoreUnavailable, Topic, TopicKind, Verdict
from magnetar.schemas.commit import read_head, read_outcome
from magnetar.schemas.read_rule import START, Mark

from .clock import Clock
from .history import messages_behind
from .log import Backlog, KnowsBacklog, Log, Message, Ownership
from .pipeline import Pipeline
from .settings import Settings
from .targets import targets_of

_READ_SECONDS: Final = 2.0


class PartitionStatus(msgspec.Struct, frozen=True):
    """One partition of an aggregate. What nobody can tell is None; ages are seconds."""

    aggregate: str
    partition: int
    commits: int
    """The number of the last one in the log."""
    owner: str | None
    """The worker that decides: as the log names it, or as its claim does."""
    owned_seconds: float | None
    """Since when it may write to the event topic."""
    undecided: int | None
    oldest_undecided_seconds: float | None
    mirrored: int | None
    """The number of the last commit in the tables."""
    oldest_unmirrored_seconds: float | None
    checkpoint: int | None
    """The number of the commit that the newest whole checkpoint stands behind."""


class _Tail(msgspec.Struct):
    """What the end of a partition's log says."""

    commits: int
    owner: str | None = None
    unmirrored_at_ms: int | None = None


class StatusReader:
    """Reads the status of a pipeline from its log, and from ClickHouse where somebody answers."""

    def __init__(self, pipeline: Pipeline, log: Log, clock: Clock, ask: Ask) -> None:
        self._pipeline = pipeline
        self._log = log
        self._clock = clock
        self._ask = ask

    def read(self, foreign: AbstractSet[str] | None = None) -> list[PartitionStatus]:
        """Every partition, by aggregate. The log is read from where the tables are; without tables, from its start.

        `foreign` is what `of_another_log` said, if somebody has asked already.
        """
        try:
            there, places = mirrored(self._ask, self._pipeline.name), mirror_places(self._ask, self._pipeline.name)
        except MagnetarError:
            there, places = None, {}
        foreign = self.of_another_log() if foreign is None else foreign
        return [
            self._partition(aggregate, partition, backlog, owner, None if aggregate in foreign else there, places)
            for aggregate in self._pipeline.aggregates
            for partition, (backlog, owner) in enumerate(
                zip(self.backlogs(aggregate), self._owners(aggregate), strict=True)
            )
        ]

    def of_another_log(self) -> set[str]:
        """The aggregates of which the tables have what was read from another log, or from a topic that was made anew
        since: where they are says nothing of this log. None where nobody answers."""
        found = dict[str, set[str]]()
        with suppress(MagnetarError):
            found = incarnations(self._ask, self._pipeline.name)
        return {
            aggregate
            for aggregate in found.keys() & self._pipeline.aggregates.keys()
            if found[aggregate] - {self._log.describe(self._pipeline.events_of(aggregate).topic).incarnation}
        }

    def read_from_others(self) -> dict[tuple[str, int], int]:
        """How many commits there are of other contexts' aggregates whose events are taken here, by partition. They are
        read from where one of the tables is; what cannot be read is left out."""
        taken = {aggregate for target in targets_of(self._pipeline).values() for aggregate in target.aggregates}
        others, found = sorted(taken - {*self._pipeline.aggregates}), dict[tuple[str, int], int]()
        with suppress(MagnetarError):
            marks = furthest_places(self._ask, self._pipeline.name, others) if others else {}
            for aggregate in others:
                for partition in range(self._pipeline.events_of(aggregate).partitions):
                    tail = self._tail(aggregate, partition, marks.get((aggregate, partition), START), None)
                    found[aggregate, partition] = tail.commits
        return found

    def backlogs(self, aggregate: str) -> Sequence[Backlog | None]:
        """How far the workers are, by partition; None where the log cannot say."""
        if isinstance(self._log, KnowsBacklog):
            return self._log.backlog(self._pipeline.topic(aggregate, TopicKind.COMMANDS))
        return [None] * self._pipeline.partitions

    def _owners(self, aggregate: str) -> Sequence[Ownership | None]:
        if isinstance(self._log, KnowsBacklog):
            return self._log.owners(self._pipeline.topic(aggregate, TopicKind.EVENTS))
        return [None] * self._pipeline.partitions

    def _partition(
        self,
        aggregate: str,
        partition: int,
        backlog: Backlog | None,
        owner: Ownership | None,
        there: dict[tuple[str, int], int] | None,
        places: dict[tuple[str, int], Mark],
    ) -> PartitionStatus:
        number = None if there is None else there.get((aggregate, partition), 0)
        mark = START if there is None else places.get((aggregate, partition), START)
        tail = self._tail(aggregate, partition, mark, number)
        active = None if backlog is None else backlog.active
        return PartitionStatus(
            aggregate,
            partition,
            tail.commits,
            active or (tail.owner if backlog is None else None),
            self._age(owner.since_ms) if owner is not None and owner.name == active else None,
            None if backlog is None else backlog.waiting,
            self._oldest_undecided(aggregate, partition, backlog),
            number,
            self._age(tail.unmirrored_at_ms),
            self._checkpoint(aggregate, partition),
        )

    # --- the log ----------------------------------------------------------------------------------------------------

    def _tail(self, aggregate: str, partition: int, mark: Mark, mirrored: int | None) -> _Tail:
        rule, tail = ReadRule(mark.owner, mark.expected), _Tail(mark.expected - 1)
        for message in self._messages(self._pipeline.events_of(aggregate).topic, partition, mark.after):
            number, owner, _ = read_head(message.payload)
            verdict = rule.judge(number, owner)
            if verdict is Verdict.CLAIM:
                tail.owner = read_outcome(message.payload)[1].get("worker")
            elif verdict is Verdict.COUNTS:
                tail.commits = number
                if tail.unmirrored_at_ms is None and mirrored is not None and number > mirrored:
                    tail.unmirrored_at_ms = message.published_at_ms
        return tail

    def _oldest_undecided(self, aggregate: str, partition: int, backlog: Backlog | None) -> float | None:
        if backlog is None or not backlog.waiting:
            return None
        topic = self._pipeline.topic(aggregate, TopicKind.COMMANDS)
        reader = self._log.reader(topic, partition, after=backlog.acknowledged)
        try:
            found = reader.read(messages_max=1, timeout_seconds=_READ_SECONDS)
        finally:
            reader.close()
        return self._age(found[0].published_at_ms) if found else None

    def _checkpoint(self, aggregate: str, partition: int) -> int | None:
        messages = self._messages(self._pipeline.topic(aggregate, TopicKind.CHECKPOINTS), partition, None)
        rounds = [each for each in find_rounds((m.id, m.payload) for m in messages) if each.is_whole]
        return rounds[-1].number if rounds else None

    def _messages(self, topic: Topic, partition: int, after: MessageId | None) -> Iterator[Message]:
        return messages_behind(self._log, topic, partition, after, timeout_seconds=_READ_SECONDS)

    def _age(self, at_ms: int | None) -> float | None:
        return None if at_ms is None else max(0.0, (self._clock.now_ms() - at_ms) / 1000)


def asking(settings: Settings) -> Ask:
    """How to ask the ClickHouse of the data folder, which is opened if nobody has it open."""
    from magnetar.projections.query import QueryFormat, query

    server = settings.server()

    def ask(sql: str) -> list[dict[str, Any]]:
        answer = query(settings.data, sql, QueryFormat.JSONL, server)
        return [json.loads(line) for line in answer.splitlines()]

    return ask


def asking_who_runs(settings: Settings) -> Ask:
    """How to ask the process that has the ClickHouse of the data folder open. Raises StoreUnavailable if none has."""
    import httpx
    from magnetar.projections.query import ask_endpoint, read_endpoint

    server = settings.server()

    def ask(sql: str) -> list[dict[str, Any]]:
        endpoint = server or read_endpoint(settings.data)
        try:
            answer = b"" if endpoint is None else ask_endpoint(endpoint, sql, "JSONEachRow")
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"ClickHouse does not answer: {error}.") from error
        if endpoint is None:
            raise StoreUnavailable("Nobody has ClickHouse open.")
        return [json.loads(line) for line in answer.splitlines()]

    return ask


class AggregateStatus(msgspec.Struct, frozen=True):
    """An aggregate: its partitions taken together, or one of them."""

    aggregate: str
    partitions: str
    commits: int
    undecided: int | None
    oldest_undecided_seconds: float | None
    unmirrored: int | None
    oldest_unmirrored_seconds: float | None
    owners: tuple[str, ...]
    owned_seconds: float | None
    """Since when all partitions have been with the owners that they have."""
    checkpoints: int


def together(found: Sequence[PartitionStatus]) -> list[AggregateStatus]:
    """The partitions of each aggregate taken together."""
    names = dict.fromkeys(each.aggregate for each in found)
    return [_sum(name, [each for each in found if each.aggregate == name]) for name in names]


def _sum(aggregate: str, found: list[PartitionStatus]) -> AggregateStatus:
    undecided = [each.undecided for each in found if each.undecided is not None]
    behind = [each.commits - each.mirrored for each in found if each.mirrored is not None]
    return AggregateStatus(
        aggregate,
        str(len(found)) if len(found) > 1 else f"#{found[0].partition}",
        sum(each.commits for each in found),
        sum(undecided) if undecided else None,
        max(_known(each.oldest_undecided_seconds for each in found), default=None),
        sum(behind) if behind else None,
        max(_known(each.oldest_unmirrored_seconds for each in found), default=None),
        tuple(sorted({each.owner for each in found if each.owner is not None})),
        min(_known(each.owned_seconds for each in found), default=None),
        sum(each.checkpoint is not None for each in found),
    )


def _known(seconds: Iterable[float | None]) -> list[float]:
    return [each for each in seconds if each is not None]
