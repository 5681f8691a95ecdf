"""How `execute` and `apply` have to read, and which messages their annotations name."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from magnetar.schemas import Command, DeclarationError, Event, Meta, Rejection

_KINDS: tuple[type[Any], ...] = (Command, Event, Rejection)
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
    method = method_of(cls, "execute")
    parameters = _parameters(cls, method, most=2, form="(self, command: …) -> … or (self, command: …, meta: Meta) -> …")
    hints = _hints(cls, method)
    if len(parameters) == 2 and hints.get(parameters[1], Meta) is not Meta:
        raise DeclarationError(
            f"{method.__qualname__} takes {shown(hints[parameters[1]])} as `{parameters[1]}`, and is given the Meta.",
            cure=f"Write `{parameters[1]}: Meta`; whatever else decides belongs into the command or the state.",
        )
    commands = _taken(cls, "execute", hints, parameters[0], Command)
    if "return" not in hints:
        raise DeclarationError(
            f"{cls.__qualname__}.execute does not say what it returns.", cure=f"Annotate it. {_OUTCOMES_CURE}"
        )
    alone, in_tuples, rejections = _outcomes(cls, hints["return"])
    members = _members(hints["return"])
    several = any(get_origin(member) is tuple for member in members)
    takes_meta, may_do_nothing = len(parameters) == 2, several or types.NoneType in members
    return Execute(commands, alone, in_tuples, rejections, takes_meta, may_do_nothing, several)


def read_apply(cls: type[Any]) -> tuple[type[Event], ...]:
    """The events that `apply` takes. Raises DeclarationError for what no worker could call."""
    method = method_of(cls, "apply")
    (parameter,) = _parameters(cls, method, most=1, form="(self, event: …) -> Self")
    hints = _hints(cls, method)
    events = _taken(cls, "apply", hints, parameter, Event)
    returned = hints.get("return", Self)
    if returned not in (Self, cls):
        raise DeclarationError(
            f"{cls.__qualname__}.apply returns {shown(returned)}, and has to return the state after the event.",
            cure="Annotate it `-> Self`, and return `self.replace(…)`, or `self` if nothing changes.",
        )
    return events


def check_is_ended(cls: type[Any]) -> None:
    """Raise DeclarationError unless `is_ended` can be called with the state alone and says yes or no."""
    method = method_of(cls, "is_ended")
    hints = _hints(cls, method)
    if len(inspect.signature(method).parameters) != 1 or hints.get("return", bool) is not bool:
        raise DeclarationError(
            f"{method.__qualname__} has to read (self) -> bool.", cure="Whether it has ended follows from its state."
        )


def method_of(cls: type[Any], name: str) -> Callable[..., Any]:
    """An ordinary method of this name. Raises DeclarationError if there is none, or one that is not ordinary."""
    method = inspect.getattr_static(cls, name, None)
    if method is None:
        raise DeclarationError(
            f"{cls.__qualname__} has no method `{name}`.",
            cure="An aggregate decides in `execute` and evolves in `apply`.",
        )
    if not isinstance(method, types.FunctionType):
        kind = type(method).__name__
        raise DeclarationError(
            f"{cls.__qualname__}.{name} is a {kind} and no method.", cure=f"Write `def {name}(self, …)`, undecorated."
        )
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise DeclarationError(
            f"{cls.__qualname__}.{name} is async: a brain waits for nothing, or its replay would decide otherwise.",
            cure="Write it without `async`, and put what it would wait for into the command.",
        )
    if inspect.isgeneratorfunction(method):
        raise DeclarationError(
            f"{cls.__qualname__}.{name} yields, and has to return.", cure="Several events are returned as a tuple."
        )
    return method


def shown(annotation: Any) -> str:
    """An annotation as it is written."""
    if annotation is types.NoneType:
        return "None"
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def _parameters(cls: type[Any], method: Callable[..., Any], *, most: int, form: str) -> list[str]:
    """The names of the parameters behind `self`, each of which can be given by its position."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not 1 <= len(parameters) <= most or any(parameter.kind not in by_position for parameter in parameters):
        name = method.__name__
        raise DeclarationError(
            f"{cls.__qualname__}.{name} has to read {form}, and reads {inspect.signature(method)}.",
            cure="It is called with these, by their positions, and with nothing else.",
        )
    return [parameter.name for parameter in parameters]


def _hints(cls: type[Any], method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a method, resolved; classes within the aggregate's own body are found too."""
    within = {name: value for name, value in vars(cls).items() if isinstance(value, type)}
    try:
        return get_type_hints(method, localns={**within, cls.__name__: cls})
    except NameError as error:
        raise DeclarationError(
            f"The annotation {error.name!r} of {method.__qualname__} cannot be resolved.",
            cure=f"Define or import it at the top level of {cls.__module__}, above {cls.__qualname__}: neither in a "
            "function nor under TYPE_CHECKING.",
        ) from error
    except (AttributeError, SyntaxError, TypeError) as error:
        raise DeclarationError(
            f"The annotations of {method.__qualname__} cannot be resolved: {error}.",
            cure="Name classes, joined by `|`.",
        ) from error


def _taken(cls: type[Any], method: str, hints: dict[str, Any], parameter: str, kind: type[Any]) -> tuple[Any, ...]:
    """The message classes that a method takes."""
    plural = f"{kind.__name__.lower()}s"
    if parameter not in hints:
        raise DeclarationError(
            f"{cls.__qualname__}.{method} does not say which {plural} it takes.",
            cure=f"Annotate `{parameter}` with your {plural}, joined by `|`.",
        )
    members = _members(hints[parameter])
    for member in members:
        if (why := _why_not(member, kind)) is not None:
            raise DeclarationError(
                f"{cls.__qualname__}.{method} takes {shown(member)}, {why}.",
                cure=f"Annotate `{parameter}` with your {plural}, joined by `|`.",
            )
    return members


def _outcomes(cls: type[Any], annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """The events that `execute` returns alone, those that it returns in tuples, and the rejections."""
    alone: dict[Any, None] = {}
    in_tuples: dict[Any, None] = {}
    rejections: dict[Any, None] = {}
    for member in _members(annotation):
        is_tuple = get_origin(member) is tuple
        parts = [part for part in get_args(member) if part is not Ellipsis] if is_tuple else [member]
        for part in (inner for each in parts for inner in _members(each)):
            kind = _kind(part)
            if kind is Event and _why_not(part, Event) is None:
                (in_tuples if is_tuple else alone)[part] = None
            elif kind is Rejection and not is_tuple and _why_not(part, Rejection) is None:
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
    why = _why_not(part, kind) if kind in (Event, Rejection) else None
    where = " within a tuple" if is_tuple else ""
    return DeclarationError(f"{returned}{where}, {why or 'which is no event, rejection or None'}.", cure=_OUTCOMES_CURE)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, in order; of anything else, itself. Type aliases, type variables, nesting are opened."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    if isinstance(annotation, TypeVar):
        parts = annotation.__constraints__ or (annotation.__bound__,)
        return (annotation,) if parts == (None,) else tuple(member for part in parts for member in _members(part))
    if hasattr(annotation, "__value__"):  # `type Wish = Buy | Ship`, from Python 3.12 on
        return _members(annotation.__value__)
    return (annotation,)


def _kind(annotation: Any) -> Any:
    """Whether it is a command, an event or a rejection, or None. `Changed[int]` is of the kind of Changed."""
    origin = get_origin(annotation) or annotation
    return next((kind for kind in _KINDS if isinstance(origin, type) and issubclass(origin, kind)), None)


def _why_not(annotation: Any, kind: type[Any]) -> str | None:
    """Why an annotation is no message class of a kind, or None if it is one."""
    name = kind.__name__.lower()
    origin = get_origin(annotation) or annotation
    if not (isinstance(origin, type) and issubclass(origin, kind)):
        found = _kind(annotation)
        return f"which is a class of {found.__name__}s" if found else f"which is no class derived from {kind.__name__}"
    if origin is kind:
        return f"which stands for every {name}, so that nobody knows which there are"
    if others := [other.__name__ for other in _KINDS if other is not kind and issubclass(origin, other)]:
        return f"which is derived from {kind.__name__} and from {others[0]}, and can only be one of them"
    if getattr(origin, "__parameters__", ()) or origin is not annotation:
        return "which is generic, so that it has no one schema"
    return None
