"""Whether a state is what its annotations say: neither its class nor `replace` looks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec
from magnetar.schemas import PartitionRefused

from .difference import differences
from .state_codec import StateCodec


def why_broken(state: Any) -> str | None:
    """What is wrong with a state, naming the field; None if a worker could store it and read it again.

    It is written and read as for a checkpoint, so that every type is judged by the code that will meet it.
    """
    aggregate: Any = type(state)
    codec = _codec(aggregate)
    try:
        written = codec.encode(state)
    except PartitionRefused as error:
        return f"{_unwritable(state) or type(state).__qualname__} cannot be stored ({error.__cause__})"
    try:
        read = codec.decode(written)
    except PartitionRefused as error:
        return _from_msgspec(state, error.__cause__ or error)
    for path, is_there, is_read in differences(state, read, exactly=True):
        return f"{_field(state, path)} is {is_there!r}, and would be read as {is_read!r}"
    return None


@lru_cache(maxsize=256)
def _codec(aggregate: Any) -> StateCodec:
    return StateCodec(aggregate)


def _from_msgspec(state: Any, error: BaseException) -> str:
    """`Expected `int`, got `str` - at `$.stage.seats``, as people read it."""
    what, _, path = str(error).partition(" - at `$")
    return f"{_field(state, path.rstrip('`'))}: {what}"


def _unwritable(state: Any) -> str | None:
    """The first field that cannot be written."""
    for name in state.__struct_fields__:
        try:
            msgspec.msgpack.encode(getattr(state, name), enc_hook=dict)
        except (TypeError, ValueError, OverflowError):
            return _field(state, f".{name}")
    return None


def _field(state: Any, path: str) -> str:
    return f"{type(state).__qualname__}{re.sub(r'^(?=[^.[])', '.', path)}"
