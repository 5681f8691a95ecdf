"""A replay: the recorded log under the code as it is now, and which commands would be decided differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from magnetar.aggregates.redecide import DOMAIN_REASONS, Became, Redeciding, Unfoldable, unknown
from magnetar.schemas import MessageId, PartitionRefused, Position, TopicKind, Undecodable
from magnetar.schemas.command_message import CommandCodec, UnknownCommandType
from magnetar.schemas.commit import Commit, CommitCodec

from .history import Codecs, log_of, messages_behind
from .log import Log, Message
from .parked import id_of
from .pipeline import Pipeline
from .sampling import Sample

EXAMPLES: Final = 3
"""So many of each kind of difference are shown, unless more are asked for."""

NOT_THERE: Final = "the command is not on its topic any more"
UNREADABLE: Final = "the command cannot be read"
BEHIND: Final = "behind an event that does not fold"


class Example(msgspec.Struct, frozen=True):
    """One command, or one event: where it stands, and what became of it then and now."""

    aggregate_id: str
    version: int
    """Of the aggregate when the command was decided, or after the event."""
    position: str
    command: str = ""
    recorded: str = ""
    now: str = ""


class Otherwise(msgspec.Struct):
    """Commands that came to one thing, and would come to another."""

    recorded: str
    now: str
    commands: int = 0
    examples: list[Example] = []


class NotFolding(msgspec.Struct):
    """Events that do not fold any more, for one reason. What stands behind one is not looked at."""

    event: str
    error: str
    aggregates: int = 0
    examples: list[Example] = []


class Replayed(msgspec.Struct):
    """What the replay of one aggregate's log came to."""

    aggregate: str
    commits: int = 0
    asked: int = 0
    """How many of their commands were decided once more."""
    not_asked: dict[str, int] = {}
    """How many could have been, and why they were not."""
    otherwise: list[Otherwise] = []
    not_folding: list[NotFolding] = []
    unsteady: int = 0
    """How many of the commands came to one thing when they were asked, and to another at once afterwards."""

    @property
    def is_same(self) -> bool:
        """Whether nothing would be decided differently, and everything folds."""
        return not self.otherwise and not self.not_folding


def replay(
    pipeline: Pipeline, log: Log, aggregate: str, *, sample: int | None = None, examples: int = EXAMPLES
) -> Replayed:
    """Decide the recorded commands of an aggregate once more, each on the recorded events before it.

    `sample` is how many commits are replayed, see Sample; None for all that there are now.
    Nothing is written. The states of one partition's aggregates are in memory at a time.
    """
    judging = Judging(pipeline, aggregate, examples)
    for partition in recorded(pipeline, log, aggregate, sample=sample):
        judging.judge(partition)
    return judging.replayed()


class Recorded(NamedTuple):
    """A commit with the command that it became of."""

    key: str
    position: str
    commit: Commit | None
    """None if this code cannot read it, as `unreadable` says."""
    unreadable: str = ""
    command: Any = None
    """None if there is none: of a drop, of what cannot be found or read (`why_not`), or is not declared (`unknown`)."""
    why_not: str = ""
    unknown: str = ""


class _Recording:
    """One partition of the log: its events and its commands, read side by side."""

    def __init__(self, pipeline: Pipeline, log: Log, aggregate: str, partition: int) -> None:
        self._pipeline, self._log, self._aggregate, self._partition = pipeline, log, aggregate, partition
        self._topic = pipeline.topic(aggregate, TopicKind.EVENTS)
        schema = pipeline.schema_of(aggregate)
        self._commits = Codecs(log, self._topic, CommitCodec(schema))
        self._commands = Codecs(log, pipeline.topic(aggregate, TopicKind.COMMANDS), CommandCodec(schema))
        self._sources = _Commands(pipeline, log, aggregate, partition)
        self.commits = 0
        """How many have been read."""

    def read(self, commits_max: int | None) -> Iterator[Recorded]:
        for message, number in islice(log_of(self._log, self._topic, self._partition), commits_max):
            self.commits += 1
            position = str(Position.of(self._pipeline.name, self._aggregate, self._partition, number))
            try:
                commit = self._commits.of(message.schema).decode(message.payload)
            except (PartitionRefused, Undecodable) as error:
                yield Recorded(message.key, position, None, error.what)
                continue
            if commit.parked is not None and commit.parked.reason not in DOMAIN_REASONS:
                yield Recorded(message.key, position, commit)
            else:
                yield self._with_command(Recorded(message.key, position, commit), commit)

    def _with_command(self, recorded: Recorded, commit: Commit) -> Recorded:
        message = self._sources.of(commit)
        if message is None:
            return recorded._replace(why_not=NOT_THERE)
        try:
            return recorded._replace(command=self._commands.of(message.schema).decode(message.payload).command)
        except UnknownCommandType as error:
            return recorded._replace(unknown=error.what)
        except Undecodable:
            return recorded._replace(why_not=UNREADABLE)


def recorded(
    pipeline: Pipeline, log: Log, aggregate: str, *, sample: int | None = None
) -> Iterator[Iterator[Recorded]]:
    """What is recorded of an aggregate, partition by partition, each read to its end before the next.

    `sample` is how many commits are wanted, see Sample; None for all.
    """
    taken = Sample(sample, pipeline.partitions)
    for partition in range(pipeline.partitions):
        if taken.of_next == 0:
            return
        recording = _Recording(pipeline, log, aggregate, partition)
        yield recording.read(taken.of_next)
        taken.took(recording.commits)


class _Commands:
    """The command topic of one partition, read once from its start: sources grow with the numbers of their commits."""

    def __init__(self, pipeline: Pipeline, log: Log, aggregate: str, partition: int) -> None:
        topic = pipeline.topic(aggregate, TopicKind.COMMANDS)
        self._incarnation = log.describe(topic).incarnation
        self._messages: Iterator[Message] = iter(messages_behind(log, topic, partition, None))
        self._next: Message | None = None
        self._is_over = False

    def of(self, commit: Commit) -> Message | None:
        """The command's message, if the topic is the one that it came by, and still has it."""
        if commit.source.incarnation != self._incarnation:
            return None
        self._read_to(commit.source.id)
        found = self._next
        return found if found is not None and found.id == commit.source.id else None

    def _read_to(self, id: MessageId) -> None:
        while not self._is_over and (self._next is None or self._next.id < id):
            self._next = next(self._messages, None)
            self._is_over = self._next is None


class Judging:
    """Decides recorded commands once more, and keeps what comes of it."""

    def __init__(self, pipeline: Pipeline, aggregate: str, examples: int = EXAMPLES) -> None:
        self._aggregate, self._class, self._examples_max = aggregate, pipeline.aggregates[aggregate], examples
        self._commits = self._asked = self._unsteady = 0
        self._not_asked: Counter[str] = Counter()
        self._otherwise: dict[tuple[str, str], Otherwise] = {}
        self._not_folding: dict[Unfoldable, NotFolding] = {}

    def judge(self, history: Iterable[Recorded]) -> None:
        """Take in what is recorded of some aggregates, each from its first event on.

        A parked command that was settled later is no difference: what became of it is recorded behind it.
        """
        redeciding = Redeciding(self._class)
        open_ones: dict[str, tuple[Recorded, Commit, Became]] = {}
        for each in history:
            self._commits += 1
            is_known = not redeciding.is_broken(each.key)
            if each.commit is None:
                if is_known:
                    self._unfoldable(redeciding.cannot_read(each.key, each.unreadable), each, 0)
                continue
            if each.commit.resolves is not None:
                open_ones.pop(each.commit.resolves, None)
            if is_known and (each.command is not None or each.unknown):
                now = self._ask(redeciding, each, each.commit)
                if now is not None and each.commit.parked is not None:
                    open_ones[id_of(each.commit, Position(each.position))] = each, each.commit, now
                elif now is not None:
                    self._differs(each, each.commit, now)
            elif each.why_not or each.command is not None:
                self._not_asked[each.why_not or BEHIND] += 1
            if (unfoldable := redeciding.fold(each.commit)) is not None:
                self._unfoldable(unfoldable, each, each.commit.version)
        for difference in open_ones.values():
            self._differs(*difference)

    def _ask(self, redeciding: Redeciding, each: Recorded, commit: Commit) -> Became | None:
        """What the command comes to now, if it is something else.

        It is asked twice then: code that looks at a clock differs from itself, and may not have changed at all.
        """
        self._asked += 1
        if each.unknown:
            return unknown(each.unknown)
        now = redeciding.decide(commit, each.command)
        if now.is_as(Became.recorded(commit)):
            return None
        if not redeciding.decide(commit, each.command).is_as(now):
            self._unsteady += 1
        return now

    def _differs(self, each: Recorded, commit: Commit, now: Became) -> None:
        before = Became.recorded(commit)
        kinds = (before.kind, now.kind)
        found = self._otherwise.setdefault(kinds, Otherwise(*kinds, examples=[]))
        found.commands += 1
        if len(found.examples) < self._examples_max:
            command = "" if each.command is None else repr(each.command)
            found.examples.append(Example(each.key, commit.version, each.position, command, _said(before), _said(now)))

    def _unfoldable(self, what: Unfoldable, each: Recorded, version: int) -> None:
        found = self._not_folding.setdefault(what, NotFolding(*what, examples=[]))
        found.aggregates += 1
        if len(found.examples) < self._examples_max:
            found.examples.append(Example(each.key, version, each.position))

    def replayed(self) -> Replayed:
        """All of it, the most frequent first."""
        return Replayed(
            self._aggregate,
            self._commits,
            self._asked,
            dict(self._not_asked),
            sorted(self._otherwise.values(), key=lambda each: -each.commands),
            sorted(self._not_folding.values(), key=lambda each: -each.aggregates),
            self._unsteady,
        )


def _said(became: Became) -> str:
    if became.outcome == "parked":
        return f"{became.reason}: {became.detail}" if became.detail else became.reason
    if became.outcome == "rejected":
        return repr(became.rejection)
    return ", ".join(repr(event) for event in became.events) or became.outcome
