"""Which types a state may be made of: values that cannot be changed in place."""

from __future__ import annotations

import collections
import collections.abc
from typing import Any, Final, get_args, get_origin

from .errors import DeclarationError

_CURES: Final[dict[Any, str]] = {
    list: "`tuple[…, ...]`",
    collections.abc.Sequence: "`tuple[…, ...]`",
    collections.abc.MutableSequence: "`tuple[…, ...]`",
    collections.deque: "`tuple[…, ...]`",
    set: "`frozenset[…]`",
    collections.abc.Set: "`frozenset[…]`",
    collections.abc.MutableSet: "`frozenset[…]`",
    dict: "`tuple[tuple[key, value], ...]`",
    collections.abc.Mapping: "`tuple[tuple[key, value], ...]`",
    collections.abc.MutableMapping: "`tuple[tuple[key, value], ...]`",
    collections.defaultdict: "`tuple[tuple[key, value], ...]`",
    bytearray: "`bytes`",
}


def mutable_part(annotation: Any) -> Any | None:
    """The first type within an annotation whose values could be changed in place, or None."""
    origin = get_origin(annotation) or annotation
    if origin in _CURES:
        return origin
    for part in get_args(annotation):
        if (found := mutable_part(part)) is not None:
            return found
    return None


def refuse_mutable(annotation: Any, *, where: str) -> None:
    """Raise DeclarationError if values of this type could be changed in place, naming the field and the cure."""
    if (found := mutable_part(annotation)) is not None:
        raise DeclarationError(
            f"{where} is a {found.__name__}, which could be changed in place: the state would differ from its replay.",
            cure=f"Use {_CURES[found]}.",
            field=where,
        )
