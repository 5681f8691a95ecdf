"""How the methods have to read that users write, and which messages their annotations name."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import DeclarationError
from .messages import Command, Event, Rejection

_KINDS: Final[tuple[type[Any], ...]] = (Command, Event, Rejection)


def method_of(cls: type[Any], name: str, *, cure: str) -> Callable[..., Any]:
    """An ordinary method of this name. Raises DeclarationError if there is none, or one that is not ordinary."""
    method = inspect.getattr_static(cls, name, None)
    if method is None:
        raise DeclarationError(f"{cls.__qualname__} has no method `{name}`.", cure=cure)
    if not isinstance(method, types.FunctionType):
        kind = type(method).__name__
        raise DeclarationError(
            f"{cls.__qualname__}.{name} is a {kind} and no method.", cure=f"Write `def {name}(self, …)`, undecorated."
        )
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise DeclarationError(
            f"{cls.__qualname__}.{name} is async: it waits for nothing, or its replay would come out otherwise.",
            cure="Write it without `async`, and put what it would wait for into the message.",
        )
    if inspect.isgeneratorfunction(method):
        raise DeclarationError(
            f"{cls.__qualname__}.{name} yields, and has to return.", cure="Several are returned as a tuple."
        )
    return method


def shown(annotation: Any) -> str:
    """An annotation as it is written."""
    if annotation is types.NoneType:
        return "None"
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def parameters_of(cls: type[Any], method: Callable[..., Any], *, most: int, form: str) -> list[str]:
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


def method_hints(cls: type[Any], method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a method, resolved; classes within the class's own body are found too."""
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


def taken(cls: type[Any], method: str, hints: dict[str, Any], parameter: str, kind: type[Any]) -> tuple[Any, ...]:
    """The message classes that a method takes."""
    plural = f"{kind.__name__.lower()}s"
    if parameter not in hints:
        raise DeclarationError(
            f"{cls.__qualname__}.{method} does not say which {plural} it takes.",
            cure=f"Annotate `{parameter}` with your {plural}, joined by `|`.",
        )
    members = members_of(hints[parameter])
    for member in members:
        if (why := why_not(member, kind)) is not None:
            raise DeclarationError(
                f"{cls.__qualname__}.{method} takes {shown(member)}, {why}.",
                cure=f"Annotate `{parameter}` with your {plural}, joined by `|`.",
            )
    return members


def members_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, in order; of anything else, itself. Type aliases, type variables, nesting are opened."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in members_of(part))
    if isinstance(annotation, TypeVar):
        parts = annotation.__constraints__ or (annotation.__bound__,)
        return (annotation,) if parts == (None,) else tuple(member for part in parts for member in members_of(part))
    if hasattr(annotation, "__value__"):  # `type Wish = Buy | Ship`, from Python 3.12 on
        return members_of(annotation.__value__)
    return (annotation,)


def kind_of(annotation: Any) -> Any:
    """Whether it is a command, an event or a rejection, or None. `Changed[int]` is of the kind of Changed."""
    origin = get_origin(annotation) or annotation
    return next((kind for kind in _KINDS if isinstance(origin, type) and issubclass(origin, kind)), None)


def why_not(annotation: Any, kind: type[Any]) -> str | None:
    """Why an annotation is no message class of a kind, or None if it is one."""
    name = kind.__name__.lower()
    origin = get_origin(annotation) or annotation
    if not (isinstance(origin, type) and issubclass(origin, kind)):
        found = kind_of(annotation)
        return f"which is a class of {found.__name__}s" if found else f"which is no class derived from {kind.__name__}"
    if origin is kind:
        return f"which stands for every {name}, so that nobody knows which there are"
    if others := [other.__name__ for other in _KINDS if other is not kind and issubclass(origin, other)]:
        return f"which is derived from {kind.__name__} and from {others[0]}, and can only be one of them"
    if getattr(origin, "__parameters__", ()) or origin is not annotation:
        return "which is generic, so that it has no one schema"
    return None
