"""What an outcome is: what `execute` returned, sorted by what it means; and what its events make of a state."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

from magnetar.schemas import Event, Rejection

from .aggregate import Contract


class Decided(NamedTuple):
    """Events to be emitted, or a rejection, or neither: nothing to do."""

    events: tuple[Event, ...]
    rejection: Rejection | None


class UndeclaredOutcome(TypeError):
    """`execute` or `apply` returned something that its annotation does not promise."""


def decide(contract: Contract, outcome: Any) -> Decided:
    """Sort what `execute` returned. Raises UndeclaredOutcome for a value that its annotation does not have.

    That includes None where it does not stand in the annotation: it is what a forgotten case returns.
    """
    kind = type(outcome)
    if kind in contract.alone_types:
        return Decided((outcome,), None)
    if kind in contract.rejection_types:
        return Decided((), outcome)
    if kind is tuple and contract.may_emit_several and all(type(event) in contract.tuple_types for event in outcome):
        return Decided(outcome, None)
    if outcome is None and contract.may_do_nothing:
        return Decided((), None)
    raise UndeclaredOutcome(f"execute returned {_what(outcome)}")


def evolve(state: Any, events: Iterable[Event]) -> Any:
    """The state after these events. Raises UndeclaredOutcome if `apply` returns anything but another such state."""
    __tracebackhide__ = True  # as in the test kit
    for event in events:
        after = state.apply(event)
        if type(after) is not type(state):
            returned = "None" if after is None else f"a {type(after).__qualname__}"
            due = type(state).__qualname__
            raise UndeclaredOutcome(
                f"apply returned {returned} for {type(event).__qualname__}, and has to return a {due}"
            )
        state = after
    return state


def _what(outcome: Any) -> str:
    """An outcome that nobody declared, by its types alone: values do not belong into details."""
    kind = type(outcome)
    if outcome is None:
        return "None, which its annotation does not declare: perhaps no case matched"
    if inspect.iscoroutine(outcome):
        outcome.close()  # else Python warns that nobody has awaited it
        return "a coroutine: it must not be async"
    if inspect.isgenerator(outcome):
        return "a generator: several events are returned as a tuple"
    if isinstance(outcome, list):
        return "a list: several events are returned as a tuple"
    if kind is tuple:
        return (
            f"a tuple of {', '.join(type(part).__qualname__ for part in outcome)} that its annotation does not declare"
        )
    return f"a {kind.__qualname__} that its annotation does not declare"
