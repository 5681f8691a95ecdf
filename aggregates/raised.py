"""What the domain's code raised: in one line for the log, where it stays, and at length for who runs the worker."""

from __future__ import annotations

import traceback
from itertools import takewhile
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

DETAIL_MAX: Final = 2000
"""How many characters of an error's own text are kept."""


def what_was_raised(error: Exception, aggregate: type[Any]) -> str:
    """`KeyError: 'West' at shop/order.py:52`: the error, and the innermost line of the aggregate's own package.

    The same code gives the same text wherever it runs: the place begins at the package, not at the machine's root. An
    error that comes from no line of the package, such as an outcome that is not declared, has no place.
    """
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error's `__str__` is code of the domain, and may raise anything itself
        said = type(error).__name__
    package = aggregate.__module__.partition(".")[0]
    walked = list(traceback.walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in walked if module_of(frame).partition(".")[0] == package]
    return said[:DETAIL_MAX] + (f" at {place_of(own[-1][0])}:{own[-1][1]}" if own else "")


def traceback_of(error: Exception) -> str:
    """The lines from the domain's on that led to the error, innermost last, and its type.

    Not its text, which could tell a payload.
    """
    walked = list(traceback.walk_tb(error.__traceback__))
    ours = sum(1 for _ in takewhile(lambda each: module_of(each[0]).startswith("magnetar."), walked))
    lines = traceback.StackSummary.extract(iter(walked[ours:])).format()
    return f"Traceback (most recent call last):\n{''.join(lines)}{type(error).__qualname__}"


def module_of(frame: FrameType) -> str:
    """The module whose code it runs."""
    return str(frame.f_globals.get("__name__", ""))


def place_of(frame: FrameType) -> str:
    """The frame's file, from its package on: the same on each machine."""
    path = PurePath(frame.f_code.co_filename)
    parts = module_of(frame).count(".") + 1 + (path.name == "__init__.py")
    return "/".join(path.parts[-parts:])
