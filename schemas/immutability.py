"""Which types messages and states may be made of: values that cannot be changed in place."""

from __future__ import annotations

import collections
import collections.abc
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from .errors import DeclarationError

_CURES: Final[dict[Any, str]] = {
    list: "`tuple[…, ...]`",
    collections.abc.Sequence: "`tuple[…, ...]`",
    collections.abc.MutableSequence: "`tuple[…, ...]`",
    collections.deque: "`tuple[…, ...]`",
    set: "`frozenset[…]`",
    collections.abc.Set: "`frozenset[…]`",
    collections.abc.MutableSet: "`frozenset[…]`",
    dict: "`Mapping[…, …]`, which is made read-only",
    collections.abc.MutableMapping: "`Mapping[…, …]`, which is made read-only",
    collections.defaultdict: "`Mapping[…, …]`, which is made read-only",
    collections.OrderedDict: "`tuple[tuple[key, value], ...]`",
    bytearray: "`bytes`",
}


def parts_of(annotation: Any) -> tuple[Any, ...]:
    """The annotations within an annotation: not the values of a Literal, nor what Annotated says besides."""
    if get_origin(annotation) is Literal:
        return ()
    if get_origin(annotation) is Annotated:
        return (annotation.__origin__,)
    return (annotation.__value__,) if hasattr(annotation, "__value__") else get_args(annotation)


def mutable_part(annotation: Any, seen: frozenset[Any] = frozenset()) -> Any | None:
    """The first type within an annotation whose values could be changed in place, or None. Structs are looked into."""
    origin = get_origin(annotation) or annotation
    if origin in _CURES:
        return origin
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        if not origin.__struct_config__.frozen:
            return origin
        parts = () if origin in seen else tuple(_hints(origin).values())
        seen |= {origin}
    else:
        parts = parts_of(annotation)
    return next((found for part in parts if (found := mutable_part(part, seen)) is not None), None)


def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        hints = get_type_hints(cls)
    except NameError:  # what cannot be resolved yet is looked at when an aggregate declares it
        hints = {name: part for name, part in cls.__annotations__.items() if not isinstance(part, str)}
    return {name: hints[name] for name in cls.__struct_fields__ if name in hints}


def refuse_mutable(annotation: Any, *, where: str) -> None:
    """Raise DeclarationError if values of this type could be changed in place, naming the field and the cure."""
    if (found := mutable_part(annotation)) is not None:
        cure = f"Use {_CURES[found]}." if found in _CURES else "Derive it from Immutable."
        raise DeclarationError(
            f"{where} is a {found.__name__}, which could be changed in place: the state would differ from its replay.",
            cure=cure,
            field=where,
        )


def refuse_mutable_fields(cls: type[Any]) -> None:
    """Raise DeclarationError for the first field of a struct whose values could be changed in place."""
    for name, annotation in _hints(cls).items():
        refuse_mutable(annotation, where=f"{cls.__qualname__}.{name}")
