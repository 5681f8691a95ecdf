"""The test kit for a brain: given events, when a command, then an outcome. No log, no process, no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, overload

import msgspec
from magnetar.schemas import Command, Event, Meta

from .aggregate import Aggregate, Brain, contract_of
from .decide import decide

C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)
E5 = TypeVar("E5", bound=Event)
O = TypeVar("O")  # noqa: E741 - the outcome, as in the design's Brain[C, E, O]

SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The command's time where a test gives none."""


# Several overloads: mypy takes events of different types for their common base, which no aggregate applies.
@overload
def given(aggregate: type[Brain[C, E1 | E2, O]], e1: E1, e2: E2, /, *, id: str = "1") -> Given[C, O]: ...
@overload
def given(aggregate: type[Brain[C, E1 | E2 | E3, O]], e1: E1, e2: E2, e3: E3, /, *, id: str = "1") -> Given[C, O]: ...
@overload
def given(
    aggregate: type[Brain[C, E1 | E2 | E3 | E4, O]], e1: E1, e2: E2, e3: E3, e4: E4, /, *, id: str = "1"
) -> Given[C, O]: ...
@overload
def given(
    aggregate: type[Brain[C, E1 | E2 | E3 | E4 | E5, O]], e1: E1, e2: E2, e3: E3, e4: E4, e5: E5, /, *, id: str = "1"
) -> Given[C, O]: ...
@overload
def given(aggregate: type[Brain[C, E, O]], /, *events: E, id: str = "1") -> Given[C, O]: ...
def given(aggregate: Any, /, *events: Any, id: str = "1") -> Any:
    """Start from an aggregate that these events have happened to.

    Raises AssertionError if `apply` makes a state whose fields have not the types that they declare.
    """
    state: Any = aggregate()
    for event in events:
        state = state.apply(event)
        _check_state(state, event)
    return Given(state, id, len(events))


class Given(Generic[C, O]):
    """An aggregate with a history."""

    def __init__(self, state: Aggregate, id: str, version: int) -> None:
        self._state = state
        self._id = id
        self._version = version

    def when(self, command: C, *, actor: str | None = None, at: datetime = SOME_TIME) -> Then[O]:
        """Let the aggregate decide. What it emits is applied too, so that an `apply` that breaks a state is seen."""
        meta = Meta(id=self._id, version=self._version, at=at, actor=actor)
        takes_meta = contract_of(type(self._state)).takes_meta
        outcome: Any = self._state.execute(command, meta) if takes_meta else self._state.execute(command)  # type: ignore[attr-defined]
        state: Any = self._state
        for event in decide(contract_of(type(state)), outcome).events:
            state = state.apply(event)
            _check_state(state, event)
        return Then(outcome, state, f"{type(state).__name__}<{self._id}@{self._version}>, given {command!r},")


class Then(Generic[O]):
    """What an aggregate decided. `state` is the one after it."""

    def __init__(self, outcome: O, state: Any, subject: str) -> None:
        self.outcome = outcome
        self.state = state
        self._subject = subject

    def then(self, outcome: O) -> None:
        """Raise AssertionError unless the outcome is this one: an event, a tuple of events, None, or a rejection."""
        expected, got = _as_tuple(outcome), _as_tuple(self.outcome)
        if [type(part) for part in expected] != [type(part) for part in got] or expected != got:
            raise AssertionError(
                f"{self._subject} decided\n  {self.outcome!r}\nand was expected to decide\n  {outcome!r}"
            )


def _as_tuple(outcome: Any) -> tuple[Any, ...]:
    return outcome if isinstance(outcome, tuple) else (outcome,)


def _check_state(state: Any, event: Event) -> None:
    try:
        msgspec.convert(msgspec.to_builtins(state), type(state))
    except (msgspec.ValidationError, TypeError) as error:
        raise AssertionError(f"After {event!r}, {type(state).__name__}.apply made {state!r}, but: {error}") from error
