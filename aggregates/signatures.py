"""How `execute` and `apply` have to read, and which messages their annotations name."""

from __future__ import annotations

import inspect
import types
from typing import Any, NamedTuple, Self, get_args, get_origin

from magnetar.schemas import Command, DeclarationError, Event, Meta, Rejection
from magnetar.schemas.signatures import (
    kind_of,
    members_of,
    method_hints,
    method_of,
    parameters_of,
    shown,
    taken,
    why_not,
)

_CURE = "An aggregate decides in `execute` and evolves in `apply`."
_OUTCOMES_CURE = (
    "Return an event, a tuple of events (`tuple[A, B]`, `tuple[A, ...]`), None for nothing to do, or a rejection."
)


class Execute(NamedTuple):
    """What the annotations of `execute` say."""

    commands: tuple[type[Command], ...]
    alone: tuple[type[Event], ...]
    in_tuples: tuple[type[Event], ...]
    rejections: tuple[type[Rejection], ...]
    takes_meta: bool
    may_do_nothing: bool
    may_emit_several: bool

    @property
    def events(self) -> tuple[type[Event], ...]:
        """Every event that may be emitted."""
        return tuple(dict.fromkeys((*self.alone, *self.in_tuples)))


def read_execute(cls: type[Any]) -> Execute:
    """What `execute` takes and returns. Raises DeclarationError for what no worker could call."""
    method = method_of(cls, "execute", cure=_CURE)
    parameters = parameters_of(
        cls, method, most=2, form="(self, command: …) -> … or (self, command: …, meta: Meta) -> …"
    )
    hints = method_hints(cls, method)
    if len(parameters) == 2 and hints.get(parameters[1], Meta) is not Meta:
        raise DeclarationError(
            f"{method.__qualname__} takes {shown(hints[parameters[1]])} as `{parameters[1]}`, and is given the Meta.",
            cure=f"Write `{parameters[1]}: Meta`; whatever else decides belongs into the command or the state.",
        )
    commands = taken(cls, "execute", hints, parameters[0], Command)
    if "return" not in hints:
        raise DeclarationError(
            f"{cls.__qualname__}.execute does not say what it returns.", cure=f"Annotate it. {_OUTCOMES_CURE}"
        )
    alone, in_tuples, rejections = _outcomes(cls, hints["return"])
    members = members_of(hints["return"])
    several = any(get_origin(member) is tuple for member in members)
    takes_meta, may_do_nothing = len(parameters) == 2, several or types.NoneType in members
    return Execute(commands, alone, in_tuples, rejections, takes_meta, may_do_nothing, several)


def read_apply(cls: type[Any]) -> tuple[type[Event], ...]:
    """The events that `apply` takes. Raises DeclarationError for what no worker could call."""
    method = method_of(cls, "apply", cure=_CURE)
    (parameter,) = parameters_of(cls, method, most=1, form="(self, event: …) -> Self")
    hints = method_hints(cls, method)
    events = taken(cls, "apply", hints, parameter, Event)
    returned = hints.get("return", Self)
    if returned not in (Self, cls):
        raise DeclarationError(
            f"{cls.__qualname__}.apply returns {shown(returned)}, and has to return the state after the event.",
            cure="Annotate it `-> Self`, and return `self.replace(…)`, or `self` if nothing changes.",
        )
    return events


def check_is_ended(cls: type[Any]) -> None:
    """Raise DeclarationError unless `is_ended` can be called with the state alone and says yes or no."""
    method = method_of(cls, "is_ended", cure=_CURE)
    hints = method_hints(cls, method)
    if len(inspect.signature(method).parameters) != 1 or hints.get("return", bool) is not bool:
        raise DeclarationError(
            f"{method.__qualname__} has to read (self) -> bool.", cure="Whether it has ended follows from its state."
        )


def _outcomes(cls: type[Any], annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """The events that `execute` returns alone, those that it returns in tuples, and the rejections."""
    alone: dict[Any, None] = {}
    in_tuples: dict[Any, None] = {}
    rejections: dict[Any, None] = {}
    for member in members_of(annotation):
        is_tuple = get_origin(member) is tuple
        parts = [part for part in get_args(member) if part is not Ellipsis] if is_tuple else [member]
        for part in (inner for each in parts for inner in members_of(each)):
            kind = kind_of(part)
            if kind is Event and why_not(part, Event) is None:
                (in_tuples if is_tuple else alone)[part] = None
            elif kind is Rejection and not is_tuple and why_not(part, Rejection) is None:
                rejections[part] = None
            elif is_tuple or part is not types.NoneType:
                raise _no_outcome(cls, part, kind, is_tuple=is_tuple)
    return tuple(alone), tuple(in_tuples), tuple(rejections)


def _no_outcome(cls: type[Any], part: Any, kind: Any, *, is_tuple: bool) -> DeclarationError:
    returned = f"{cls.__qualname__}.execute returns {shown(part)}"
    if is_tuple and kind is Rejection:
        return DeclarationError(
            f"{returned} within a tuple: a rejection stands alone, because nothing has happened then.",
            cure=_OUTCOMES_CURE,
        )
    why = why_not(part, kind) if kind in (Event, Rejection) else None
    where = " within a tuple" if is_tuple else ""
    return DeclarationError(f"{returned}{where}, {why or 'which is no event, rejection or None'}.", cure=_OUTCOMES_CURE)
