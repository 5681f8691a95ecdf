"""Mappings that cannot be changed: what a struct makes of every mapping that it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, get_origin, get_type_hints

import msgspec

from .immutability import parts_of

_MAPPINGS: Final = (Mapping, dict)


def _refuse(*_args: Any, **_kw: Any) -> Any:
    raise TypeError("This mapping belongs to an immutable value. Make a new one: {**mapping, key: value}")


class ReadOnlyDict(dict[Any, Any]):
    """A dict that refuses to be changed. Equal to a dict with the same items, encoded and printed like one.

    A dict and not a `MappingProxyType`, which `msgspec` cannot encode, `pickle` cannot copy and nothing can hash.
    """

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> Any:
        return ReadOnlyDict, (dict(self),)


def read_only(value: Any) -> Any:
    """The value, with each mapping in it copied into one that cannot be changed. Tuples are looked into."""
    if isinstance(value, ReadOnlyDict):
        return value
    if isinstance(value, Mapping):
        return ReadOnlyDict({key: read_only(part) for key, part in value.items()})
    if isinstance(value, tuple):
        parts = [read_only(part) for part in value]
        if any(new is not old for new, old in zip(parts, value, strict=True)):
            make: Any = getattr(value, "_make", tuple)  # a NamedTuple stays one
            return make(parts)
    return value


def freezing(namespace: dict[str, Any], bases: tuple[type, ...]) -> Callable[[Any], None] | None:
    """The `__post_init__` that a struct class of this body needs so that its mappings are read-only, or None.

    `msgspec` calls it from the constructor, when it decodes or converts, and from `replace`.
    """
    annotations = namespace.get("__annotations__")
    if annotations is None:  # Python 3.14 has them later: look at all fields
        names = None if {"__annotate__", "__annotate_func__"} & set(namespace) else ()
    else:
        known = vars(sys.modules.get(namespace.get("__module__", ""), SimpleNamespace()))
        names = tuple(name for name, annotation in annotations.items() if _may_be_mapping(annotation, known))
    if names == ():
        return None
    inherited = (getattr(base, "__post_init__", None) for base in bases)
    then = namespace.get("__post_init__") or next(filter(None, inherited), None)

    def __post_init__(self: Any) -> None:  # noqa: N807 - msgspec's name for it
        for name in self.__struct_fields__ if names is None else names:
            value = getattr(self, name)
            frozen = read_only(value)
            if frozen is not value:
                msgspec.structs.force_setattr(self, name, frozen)
        if then is not None:
            then(self)

    return __post_init__


def _may_be_mapping(annotation: Any, known: dict[str, Any]) -> bool:
    """Whether values of this type can have a mapping in them. An annotation that cannot be resolved yet may."""
    if "ClassVar" in str(annotation):
        return False
    if isinstance(annotation, str):
        try:
            annotation = get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), globalns=known)["it"]
        except NameError:
            return True
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, _MAPPINGS):
        return True
    return any(_may_be_mapping(part, known) for part in parts_of(annotation))
