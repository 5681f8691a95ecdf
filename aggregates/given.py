"""The test kit for a brain: given events, when a command, then an outcome. No log, no process, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, overload

from magnetar.schemas import Command, Event, Meta
from magnetar.schemas.derivation import RecordCodec, record_schema

from . import evidence
from .aggregate import Aggregate, Brain, contract_of
from .decide import UndeclaredOutcome, decide, evolve
from .difference import Difference, differences
from .state_check import why_broken

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
_ENDED: Final = object()

# `__tracebackhide__`: pytest leaves such frames out, so that a failure shows the test's own line first.


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
@overload  # for long histories: from the sixth event on, only the test sees one that is not the aggregate's
def given(
    aggregate: type[Brain[C, E1 | E2 | E3 | E4 | E5, O]],
    e1: E1,
    e2: E2,
    e3: E3,
    e4: E4,
    e5: E5,
    e6: Event,
    /,
    *events: Event,
    id: str = "1",
) -> Given[C, O]: ...
def given(aggregate: Any, /, *events: Any, id: str = "1") -> Any:
    """Start from an aggregate that these events have happened to.

    Raises AssertionError if an event could not stand in the log or is not the aggregate's, and if `apply` makes a state
    whose fields have not the types that they declare.
    """
    __tracebackhide__ = True
    contract = contract_of(aggregate)
    for event in events:
        if type(event) not in contract.events:
            raise AssertionError(f"{aggregate.__name__}.apply does not take {event!r}.")
        _check_message(event, "could not stand in the log")
    return Given(_evolved(aggregate(), events), id, len(events))


class Given(Generic[C, O]):
    """An aggregate with a history."""

    def __init__(self, state: Aggregate, id: str, version: int) -> None:
        self._state = state
        self._id = id
        self._version = version

    def when(
        self, command: C, *, actor: str | None = None, at: datetime = SOME_TIME, correlation_id: str | None = None
    ) -> Then[O]:
        """Let the aggregate decide, as a worker would: one that has ended is not asked.

        What it emits is applied too. Raises AssertionError for whatever a worker would park the command for: an outcome
        that is not declared, an event or a rejection whose fields have wrong types, a state that `apply` broke. What
        `execute` raises comes out as it is.
        """
        __tracebackhide__ = True
        state: Any = self._state
        contract = contract_of(type(state))
        subject = f"{type(state).__name__}<{self._id}@{self._version}>, given {command!r},"
        if type(command) not in contract.commands:
            raise AssertionError(f"{type(state).__name__}.execute does not take {command!r}.")
        if at.tzinfo is None:
            raise AssertionError(f"{at!r} has no time zone, and a command's time always has: add `tzinfo=UTC`.")
        _check_message(command, "could not be sent")
        before = evidence.Before(state, self._version, command)
        if state.is_ended():
            return Then(before, _ENDED, state, subject)
        meta = Meta(id=self._id, version=self._version, at=at, actor=actor, correlation_id=correlation_id)
        outcome = state.execute(command, meta) if contract.takes_meta else state.execute(command)
        try:
            decided = decide(contract, outcome)
        except UndeclaredOutcome as error:
            raise AssertionError(f"{subject} would be parked: {error}.") from None
        for message in (*decided.events, *filter(None, [decided.rejection])):
            _check_message(message, "could not be stored, and its command would be parked")
        return Then(before, outcome, _evolved(state, decided.events), subject)


class Then(Generic[O]):
    """What an aggregate decided. `state` is the one after it."""

    def __init__(self, before: evidence.Before, outcome: Any, state: Any, subject: str) -> None:
        self.state = state
        self._before = before
        self._outcome = outcome
        self._subject = subject

    @property
    def outcome(self) -> O:
        """An event, a tuple of events, None, or a rejection. Raises AssertionError if the aggregate had ended."""
        __tracebackhide__ = True
        if self._outcome is _ENDED:
            raise AssertionError(
                f"{self._subject} had ended: a worker parks the command, and `execute` is not asked. "
                "If that is meant: `.then_ended()`."
            )
        outcome: O = self._outcome
        return outcome

    def then(self, outcome: O) -> None:
        """Raise AssertionError unless the outcome is this one, saying which fields differ."""
        __tracebackhide__ = True
        found = list(differences(_as_tuple(outcome), _as_tuple(self.outcome)))
        if found:
            raise AssertionError(_said(self._subject, outcome, self._outcome, found))
        evidence.record(self._before, self._outcome)

    def then_ended(self) -> None:
        """Raise AssertionError unless the aggregate had ended before the command, which a worker would park."""
        __tracebackhide__ = True
        if self._outcome is not _ENDED:
            raise AssertionError(f"{self._subject} had not ended, and decided:\n  {self._outcome!r}")
        evidence.record_ended(self._before)


def _as_tuple(outcome: Any) -> tuple[Any, ...]:
    return outcome if isinstance(outcome, tuple) else (outcome,)


def _said(subject: str, expected: Any, got: Any, found: list[Difference]) -> str:
    """What was expected, what was decided, and, where they are of the same types, the fields that differ."""
    lines = [f"{subject} decided something else", f"  expected: {expected!r}", f"  got:      {got!r}"]
    is_one = len(_as_tuple(expected)) == len(_as_tuple(got)) == 1
    places = [(path.removeprefix("[0]") if is_one else path, left, right) for path, left, right in found]
    lines += [f"  {place}: expected {left!r}, got {right!r}" for place, left, right in places if place]
    return "\n".join(lines)


def _evolved(state: Any, events: Iterable[Event]) -> Any:
    __tracebackhide__ = True
    for event in events:
        try:
            state = evolve(state, [event])
        except UndeclaredOutcome as error:
            raise AssertionError(f"{type(state).__name__} is not evolved: {error}.") from None
        if (broken := why_broken(state)) is not None:
            raise AssertionError(f"After {event!r}, {type(state).__name__}.apply made {state!r}, but {broken}")
    return state


def _check_message(message: Any, why: str) -> None:
    __tracebackhide__ = True
    cls: Any = type(message)
    try:
        _codec(cls).encode(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise AssertionError(f"{message!r} {why}: {error}") from None


@lru_cache(maxsize=1024)
def _codec(cls: Any) -> RecordCodec:
    return RecordCodec(cls, record_schema(cls, namespace="given"))
