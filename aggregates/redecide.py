"""Recorded commands, decided once more by the code as it is now: what would come out otherwise, and what folds no more.

Pure: the commits and commands are passed in, in the order of the log.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from magnetar.schemas import wire_name
from magnetar.schemas.commit import Commit, meta_of

from .aggregate import Aggregate, contract_of
from .decide import decide, evolve
from .difference import differences
from .raised import what_was_raised

DOMAIN_REASONS: Final = frozenset(("brain_raised", "ended", "unknown_type"))
"""Why a command is parked where other code could decide it. The other reasons lie in its message or in its time."""


class Became(NamedTuple):
    """What a command comes to."""

    outcome: str
    """`accepted`, `nothing`, `rejected` or `parked`."""
    events: tuple[Any, ...] = ()
    rejection: Any = None
    reason: str = ""
    """Why it is parked."""
    detail: str = ""

    @classmethod
    def recorded(cls, commit: Commit) -> Became:
        """What it came to when it was decided."""
        reason, detail = ("", "") if commit.parked is None else (commit.parked.reason, commit.parked.detail)
        return cls(commit.outcome, commit.events, commit.rejection, reason, detail)

    @property
    def kind(self) -> str:
        """In a word or two, what to count it by: `Shipped`, `rejected: TooLate`, `nothing`, `parked: ended`."""
        if self.outcome == "accepted":
            return " + ".join(wire_name(type(event)) for event in self.events)
        if self.outcome == "rejected":
            return f"rejected: {wire_name(type(self.rejection))}"
        return f"parked: {self.reason}" if self.outcome == "parked" else self.outcome

    def is_as(self, other: Became) -> bool:
        """Whether it is the same: of what is parked, for the same reason. A NaN is the same as a NaN."""
        mine, others = self._replace(detail=""), other._replace(detail="")
        return mine == others or not any(differences(tuple(mine), tuple(others)))


class Unfoldable(NamedTuple):
    """A recorded event that the code as it is now does not take."""

    event: str
    """Its type, as far as it is known."""
    error: str
    """What was raised, and at which line."""


class Redeciding:
    """The aggregates of one partition, folded from their recorded events by the code as it is now.

    A command is decided where it stood, and what was recorded is what its aggregate goes on with: one rule that has
    changed does not change everything behind it.
    """

    def __init__(self, aggregate: type[Aggregate]) -> None:
        self._contract = contract_of(aggregate)
        self._aggregate = aggregate
        self._seed: Any = aggregate()
        self._states: dict[str, Any] = {}
        self._broken: set[str] = set()

    def is_broken(self, id: str) -> bool:
        """Whether an event of this aggregate does not fold, so that nobody knows its state behind that."""
        return id in self._broken

    def decide(self, commit: Commit, command: Any) -> Became:
        """What the command of this commit comes to now. Call it before `fold`."""
        state = self._states.get(commit.aggregate_id, self._seed)
        try:
            if self._contract.can_end and state.is_ended():
                return Became("parked", reason="ended")
            outcome = state.execute(command, meta_of(commit)) if self._contract.takes_meta else state.execute(command)
            decided = decide(self._contract, outcome)
            evolve(state, decided.events)
        except Exception as error:  # noqa: BLE001 - whatever the domain's code raises is what is found out here
            return Became("parked", reason="brain_raised", detail=what_was_raised(error, self._aggregate))
        if decided.rejection is not None:
            return Became("rejected", rejection=decided.rejection)
        return Became("accepted", events=decided.events) if decided.events else Became("nothing")

    def fold(self, commit: Commit) -> Unfoldable | None:
        """Take the recorded events in; returns what is wrong with the first that does not fold."""
        if not commit.events or commit.aggregate_id in self._broken:
            return None
        state = self._states.get(commit.aggregate_id, self._seed)
        for event in commit.events:
            try:
                state = evolve(state, (event,))
            except Exception as error:  # noqa: BLE001 - the same, of its `apply`
                self._broken.add(commit.aggregate_id)
                return Unfoldable(wire_name(type(event)), what_was_raised(error, self._aggregate))
        self._states[commit.aggregate_id] = state
        return None

    def cannot_read(self, id: str, why: str) -> Unfoldable:
        """A commit of this aggregate has something that this code does not know: nobody knows its state behind that."""
        self._broken.add(id)
        return Unfoldable("", why)


def unknown(why: str) -> Became:
    """What a command comes to that this code does not declare."""
    return Became("parked", reason="unknown_type", detail=why)
