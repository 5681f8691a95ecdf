"""What a client learns of its command: a receipt, that it was parked, or that nobody knows yet."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from magnetar.schemas import MagnetarError, OutcomeUnknown, Position, Undecodable
from magnetar.schemas.commit import PARKED, Commit, Parked
from magnetar.schemas.errors import Fault

O_co = TypeVar("O_co", covariant=True)

_CURES: Final = {
    "version_conflict": "Something was decided meanwhile: look at it, and send what is still wanted under a new id.",
    "expired": "If it may have been sent before, look what became of it; otherwise `magnetar parked` sends it again.",
    "ended": "What has ended takes no more commands: begin anew under another aggregate id.",
    "unknown_type": "Run workers with the code that declares it; then `magnetar parked` sends it again.",
}
"""By the reason; for the others: mend it."""


class Receipt(Generic[O_co]):
    """What became of a command: its outcome, the aggregate's version after it, and where its commit stands."""

    __slots__ = ("outcome", "position", "version")

    def __init__(self, outcome: O_co, version: int, position: Position) -> None:
        self.outcome = outcome
        self.version = version
        self.position = position

    def __repr__(self) -> str:
        return f"Receipt(outcome={self.outcome!r}, version={self.version}, position={self.position!r})"


class CommandParked(MagnetarError):
    """The command could not be decided. It stands in the log with its reason; the same id gets the same answer.

    `reason` is a word for programs (`version_conflict`, `brain_raised`, `ended`, `expired`, …), `detail` a sentence,
    `version` what the aggregate was at then.

    What to do: mend the reason, and send it again with `magnetar parked MODULE retry`, or give it up with `drop`.
    """

    fault = Fault.YOURS

    def __init__(self, parked: Parked, position: Position, command_id: str, version: int) -> None:
        super().__init__(
            f"The command was parked at {position}: {parked.reason} ({parked.detail}).",
            cure=_CURES.get(
                parked.reason, f"Mend the reason; then `magnetar parked MODULE retry {position}` sends it again."
            ),
            reason=parked.reason,
            detail=parked.detail,
            position=position,
            command_id=command_id,
            version=version,
        )
        self.reason = parked.reason
        self.detail = parked.detail
        self.position = position
        self.command_id = command_id
        self.version = version


def receipt_of(context: str, aggregate: str, partition: int, commit: Commit) -> Receipt[Any]:
    """What a commit says to whoever sent its command. Raises CommandParked for a parked one."""
    position = Position.of(context, aggregate, partition, commit.number)
    if commit.outcome == PARKED and commit.parked is not None:
        raise CommandParked(commit.parked, position, commit.command_id, commit.version)
    outcome: Any = commit.rejection
    if commit.events:
        outcome = commit.events[0] if len(commit.events) == 1 else commit.events
    return Receipt(outcome, commit.version + len(commit.events), position)


def unknown(command_id: str, why: str) -> OutcomeUnknown:
    """The error for a command of which nobody has said what became of it."""
    return OutcomeUnknown(
        f"What became of command {command_id} is unknown: {why}.",
        cure="Repeating it with the same command id is safe: an id is decided once.",
        command_id=command_id,
    )


def unreadable(command_id: str, why: MagnetarError) -> Undecodable:
    """The error for a command that was decided, with an outcome that this code cannot read: the worker is newer."""
    error = Undecodable(
        f"Command {command_id} was decided, and this code cannot read the outcome. {why.what}",
        cure="Deploy the code that declares it here too: asking again with the same command id gives the outcome then.",
        command_id=command_id,
    )
    error.__cause__ = why
    return error
