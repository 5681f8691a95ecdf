"""The names of things in the log: topics, places on them, positions."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Self

from .errors import SettingsError
from .names import kebab


class TopicKind(Enum):
    """What a topic of an aggregate carries."""

    COMMANDS = "commands"
    EVENTS = "events"
    CHECKPOINTS = "checkpoints"


class Topic(NamedTuple):
    """One topic of one aggregate in one context; `str()` is its name within the log."""

    context: str
    aggregate: str
    kind: TopicKind

    def __str__(self) -> str:
        return f"{self.context}/{kebab(self.aggregate)}-{self.kind.value}"


class MessageId(NamedTuple):
    """A message's place within one partition of one topic. Compares in the order of the partition.

    On Pulsar (ledger, entry, batch index); on the embedded log (offset, 0, 0), offsets counting from 1.
    """

    ledger: int
    entry: int = 0
    batch: int = 0


class Position(str):
    """Where in the log a commit stands: `context/Aggregate/partition/number`."""

    __slots__ = ()

    @classmethod
    def of(cls, context: str, aggregate: str, partition: int, number: int) -> Self:
        """Put a position together."""
        return cls(f"{context}/{aggregate}/{partition}/{number}")

    def parts(self) -> tuple[str, str, int, int]:
        """Context, aggregate, partition and number. Raises SettingsError if the text is not a position."""
        try:
            context, aggregate, partition, number = self.split("/")
            return context, aggregate, int(partition), int(number)
        except ValueError:
            raise SettingsError(
                f"{str(self)!r} is not a position.", cure="A position reads context/Aggregate/partition/number."
            ) from None
