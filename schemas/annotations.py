"""Reading Python annotations: what is within and around a type."""

from __future__ import annotations

import enum
import types
import typing
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from .errors import DeclarationError
from .immutability import parts_of


def hints_of(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotations of a class. Raises DeclarationError naming what cannot be resolved."""
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"The annotation {error.name!r} of {cls.__qualname__} cannot be resolved.",
            cure=f"Define or import it at the top level of {cls.__module__}.",
            type=cls.__qualname__,
        ) from error


def is_resolvable(cls: type[Any]) -> bool:
    """Whether all that the annotations of a class name is there already."""
    try:
        get_type_hints(cls)
    except NameError:
        return False
    return True


def is_struct(annotation: Any) -> bool:
    """Whether it is a class derived from Immutable."""
    return (
        isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and hasattr(annotation, "__wire_name__")
    )


def without_enums(annotation: Any) -> Any:
    """The same with Any for each enum: `msgspec` does not take the members of an enum of numbers for what they are."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return Any
    parts = parts_of(annotation)
    free = tuple(without_enums(part) for part in parts)
    if all(new is old for new, old in zip(free, parts, strict=True)):
        return annotation
    origin: Any = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return Union[free]  # noqa: UP007 - of as many as there are
    if origin is Annotated:
        return Annotated[(free[0], *annotation.__metadata__)]
    return free[0] if hasattr(annotation, "__value__") else origin[free]


def doc_of(annotation: Any) -> str:
    """What an annotation says of its field: `Annotated[int, "in minutes"]`, or msgspec.Meta(description=…)."""
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, str):
                return extra
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
    parts = get_args(annotation) if get_origin(annotation) in (Annotated, Union, types.UnionType) else ()
    return next((doc for part in parts if (doc := doc_of(part))), "")


def opened(annotation: Any) -> tuple[Any, list[Any]]:
    """Without `Annotated`, `NewType` and `type` aliases around it; and what `Annotated` said."""
    extras: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            extras.extend(annotation.__metadata__)
            annotation = annotation.__origin__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation, extras


def show(annotation: Any) -> str:
    """An annotation as its author wrote it, about."""
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union annotation, in order; of anything else, itself. Type aliases and nesting are opened."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for part in get_args(annotation) for m in union_members(part))
    if isinstance(annotation, typing.TypeVar):
        return union_members(annotation.__bound__)
    if hasattr(annotation, "__value__"):
        return union_members(annotation.__value__)
    return (annotation,)
