"""Where two values differ, down to the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec


class Difference(NamedTuple):
    """A place, such as `.stage.seats[2]`, and what stands there in the one and in the other."""

    path: str
    left: Any
    right: Any


def differences(left: Any, right: Any, *, path: str = "", exactly: bool = False) -> Iterator[Difference]:
    """Each place where two values differ; nothing for equal ones.

    Messages and states differ by their class too, and one NaN equals another. With `exactly`, equal values of different
    classes differ as well, such as 1 and True; but a whole number may stand for a float.
    """
    if isinstance(left, msgspec.Struct) and type(left) is type(right):
        for name in left.__struct_fields__:
            yield from differences(getattr(left, name), getattr(right, name), path=f"{path}.{name}", exactly=exactly)
    elif isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right):
        for n, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from differences(one, other, path=f"{path}[{n}]", exactly=exactly)
    elif isinstance(left, Mapping) and isinstance(right, Mapping) and left.keys() == right.keys():
        for key in left:
            yield from differences(left[key], right[key], path=f"{path}[{key!r}]", exactly=exactly)
    elif not _equal(left, right) or (exactly and not _alike(left, right)):
        yield Difference(path, left, right)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, msgspec.Struct) and isinstance(right, msgspec.Struct) and type(left) is not type(right):
        return False
    return bool(left == right) or (left != left and right != right)  # noqa: PLR0124 - NaN, of a float or a Decimal


def _alike(left: Any, right: Any) -> bool:
    return type(left) is type(right) or {type(left), type(right)} == {int, float}
