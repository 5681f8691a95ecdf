"""What an outcome is: the value that `execute` returned, sorted by what it means."""

from __future__ import annotations

from typing import Any, NamedTuple

from magnetar.schemas import Event, Rejection

from .aggregate import Contract


class Decided(NamedTuple):
    """Events to be emitted, or a rejection, or neither: nothing to do."""

    events: tuple[Event, ...]
    rejection: Rejection | None


class UndeclaredOutcome(TypeError):
    """`execute` returned something that its annotation does not promise."""


def decide(contract: Contract, outcome: Any) -> Decided:
    """Sort what `execute` returned. Raises UndeclaredOutcome for a value that the contract does not have."""
    if outcome is None:
        return Decided((), None)
    kind = type(outcome)
    if kind in contract.event_types:
        return Decided((outcome,), None)
    if kind in contract.rejection_types:
        return Decided((), outcome)
    if kind is tuple and outcome and all(type(event) in contract.event_types for event in outcome):
        return Decided(outcome, None)
    if kind is tuple and not outcome:
        return Decided((), None)
    raise UndeclaredOutcome(f"execute returned a {kind.__qualname__} that its annotation does not declare")
