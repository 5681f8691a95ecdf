"""How the columns of our tables are compressed: chosen by type, where it pays.

Measured on the 80,491 events of January in examples/flights, merged: 3.09 MB instead of 4.06 for the events, 2.26
instead of 3.47 for the commits, 1.40 instead of 1.94 for the tables of rows and folds; inserts took as long as before.
What is left is mostly the ids of commands, which are random.
"""

from __future__ import annotations

import re
from typing import Final

PLAIN: Final = "ZSTD(1)"
"""Of texts, ids and all else. ClickHouse's own LZ4 took 2.8 times as much for ids of flights, 1.2 times for UUIDs."""

INTEGERS: Final = "T64, ZSTD(1)"
"""Most are far smaller than their type: delays in minutes took two thirds of what ZSTD alone makes of them."""

TIMES: Final = "Delta, ZSTD(1)"
"""Rows that stand together are often of nearly one time: of windows' begins, two fifths of what ZSTD alone makes."""

CONTIGUOUS: Final = "DoubleDelta, ZSTD(1)"
"""Of numbers that count on by one, which take nothing then."""

ASCENDING: Final = "Delta, ZSTD(1)"
"""Of numbers that are greater from row to row, by various steps."""

_OF_TYPES: Final = (
    (re.compile(r"(Nullable\()?U?Int(8|16|32|64)\b"), INTEGERS),
    (re.compile(r"(Nullable\()?Date(32|Time|Time64)?\b"), TIMES),
)
_HAS_ONE: Final = re.compile(r" CODEC\([\w(), ]+\)$")


def compressed(definition: str, codec: str | None = None) -> str:
    """A column's definition, which begins with its type, with the codec of that type, or with another one.

    A definition that has one keeps it. Tables that were made without are left as they are: a codec is of what is
    written, and both kinds answer alike.
    """
    if _HAS_ONE.search(definition):
        return definition
    return f"{definition} CODEC({codec or of_type(definition)})"


def of_type(definition: str) -> str:
    """What the values of a column's type are compressed with."""
    return next((codec for pattern, codec in _OF_TYPES if pattern.match(definition)), PLAIN)
