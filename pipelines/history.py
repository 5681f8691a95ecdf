"""Reading an event topic by the read rule: only the commits that count, with what is needed to go on from there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Generic, Protocol, Self, TypeVar

from magnetar.schemas import LogUnavailable, MessageId, ReadRule, Topic, Verdict
from magnetar.schemas.commit import read_head
from magnetar.schemas.read_rule import START, Mark

from .log import Log, Message

_MARKS_MAX: Final = 20_000
WITHOUT: Final = -1
"""The number of the schema of a message that was written without one: it is taken for today's."""
_GAP_SECONDS: Final = 10.0


def cut_short(topic: Topic, partition: int) -> LogUnavailable:
    """What is raised where a log stops giving what it has."""
    return LogUnavailable(
        f"{topic} partition {partition} stopped giving messages before its end.",
        cure="See whether the broker runs, and try again: nothing was changed.",
    )


class Marks:
    """Places along a partition's log, so that one commit can be read again without reading all before it."""

    def __init__(self, marks: Sequence[Mark] = ()) -> None:
        self._marks: deque[Mark] = deque(marks or [START])

    def add(self, mark: Mark) -> None:
        """Remember a place behind all others; past 20,000 of them, every second one is forgotten."""
        self._marks.append(mark)
        if len(self._marks) > _MARKS_MAX:
            self._marks = deque(mark for i, mark in enumerate(self._marks) if i % 2 == 0)

    @property
    def last(self) -> Mark:
        """The last place."""
        return self._marks[-1]

    def before_last(self) -> Mark:
        """A place before the last one: the one behind the last commit but some, or the start."""
        number = self._marks[-1].after
        return next((mark for mark in reversed(self._marks) if mark.after != number), START)

    def thinned(self, commits: int) -> list[Mark]:
        """Some of the places: one each so many commits."""
        kept: list[Mark] = []
        for mark in self._marks:
            if not kept or mark.expected >= kept[-1].expected + commits:
                kept.append(mark)
        return kept

    def before(self, number: int) -> Mark:
        """The last place that stands before the commit with this number."""
        found = self._marks[0]
        for mark in self._marks:
            if mark.expected > number:
                break
            found = mark
        return found


class ForSchema(Protocol):
    """A codec that gives one for what was written with another schema."""

    def for_schema(self, written_with: str) -> Self:
        """The codec for that schema's text."""
        ...


Codec = TypeVar("Codec", bound=ForSchema)


class Codecs(Generic[Codec]):
    """The codec of each schema number that a topic's messages were written with."""

    def __init__(self, log: Log, topic: Topic, own: Codec) -> None:
        self._log = log
        self._topic = topic
        self._own = own
        self._known: dict[int, Codec] = {WITHOUT: own}

    def of(self, schema: int) -> Codec:
        """The codec for messages of this schema. Raises PartitionRefused for commits that this code cannot read."""
        codec = self._known.get(schema)
        if codec is None:
            codec = self._known[schema] = self._own.for_schema(self._log.schema(self._topic, schema))
        return codec


COPYING: Final = "magnetar.copying"
COPIED: Final = "magnetar.copied"
"""In the metadata of claims: the context that is being copied into this one, or was."""


def counting(messages: Sequence[Message], rule: ReadRule) -> Iterator[tuple[Message, int]]:
    """Those of the messages that count, with their numbers; the rule is left behind the last one looked at."""
    for message in messages:
        number, owner, _ = read_head(message.payload)
        if rule.judge(number, owner) is Verdict.COUNTS:
            yield message, number


def log_of(log: Log, topic: Topic, partition: int, start: Mark = START) -> Iterator[tuple[Message, int]]:
    """The commits of a partition that count, with their numbers: from a place on, to where the log ends now.

    Raises LogUnavailable if the log does not give all of it.
    """
    end = log.end(topic, partition)
    if end is None or (start.after is not None and end <= start.after):
        return
    rule, reader = ReadRule(start.owner, start.expected), log.reader(topic, partition, after=start.after)
    try:
        while True:
            messages = reader.read(messages_max=1000, timeout_seconds=_GAP_SECONDS)
            if not messages:
                raise cut_short(topic, partition)
            yield from counting([message for message in messages if message.id <= end], rule)
            if messages[-1].id >= end:
                return
    finally:
        reader.close()


def messages_at(log: Log, topic: Topic, partition: int, ids: Collection[MessageId]) -> dict[MessageId, Message]:
    """The messages at these places of a partition, as far as they are there still: it is read from its start."""
    end = log.end(topic, partition)
    found: dict[MessageId, Message] = {}
    if end is None or not ids:
        return found
    last = min(end, max(ids))
    reader = log.reader(topic, partition, after=None)
    try:
        while messages := reader.read(messages_max=1000, timeout_seconds=_GAP_SECONDS):
            found.update((message.id, message) for message in messages if message.id in ids)
            if messages[-1].id >= last:
                break
    finally:
        reader.close()
    return found


def messages_behind(
    log: Log, topic: Topic, partition: int, after: MessageId | None, *, timeout_seconds: float = _GAP_SECONDS
) -> Iterator[Message]:
    """The messages of a partition behind a place, one by one: see `batches_behind`."""
    for messages in batches_behind(log, topic, partition, after, timeout_seconds=timeout_seconds):
        yield from messages


def batches_behind(
    log: Log, topic: Topic, partition: int, after: MessageId | None, *, timeout_seconds: float = _GAP_SECONDS
) -> Iterator[Sequence[Message]]:
    """What stands in a partition behind a place, up to where it ends now or gives nothing for so long."""
    end = log.end(topic, partition)
    if end is None or (after is not None and end <= after):
        return
    reader = log.reader(topic, partition, after=after)
    try:
        while messages := reader.read(messages_max=1000, timeout_seconds=timeout_seconds):
            yield messages
            if messages[-1].id >= end:
                return
    finally:
        reader.close()


def find(
    log: Log, topic: Topic, partition: int, numbers: Sequence[int], marks: Marks, *, is_late: Callable[[], bool]
) -> dict[int, Message]:
    """Read the commits with these numbers again.

    Gives up, with what has been found so far, when `is_late` says so.
    """
    found: dict[int, Message] = {}
    wanted = sorted(set(numbers))
    while wanted and not is_late():
        mark = marks.before(wanted[0])
        rule = ReadRule(mark.owner, mark.expected)
        reader = log.reader(topic, partition, after=mark.after)
        try:
            while wanted and not is_late():
                for message, number in counting(reader.read(messages_max=1000, timeout_seconds=0.1), rule):
                    if number in wanted:
                        found[number] = message
                        wanted.remove(number)
                if wanted and marks.before(wanted[0]).expected > rule.expected:
                    break  # a mark nearer to the next one
        finally:
            reader.close()
    return found
