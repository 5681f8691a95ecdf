"""What tests have shown of an aggregate: which command, in which kind of state, had which outcome.

The test kit writes a line of JSON for each outcome that a test has confirmed, if MAGNETAR_EVIDENCE names a file. Test
processes may share the file.
"""

from __future__ import annotations

import enum
import os
import types
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from magnetar.schemas import Command, Rejection
from magnetar.schemas.annotations import hints_of, opened, union_members

from .aggregate import Aggregate, contract_of

VARIABLE: Final = "MAGNETAR_EVIDENCE"
ENDED: Final = "ended"
_KINDS_MAX: Final = 64


class Before(NamedTuple):
    """What a command met."""

    state: Aggregate
    version: int
    command: Command


class Evidence(msgspec.Struct, frozen=True):
    """One confirmed outcome. `outcome` is accepted, nothing, rejected or ended; `types` are its events or rejection."""

    aggregate: str
    state: str
    command: str
    outcome: str
    types: list[str]


def record(before: Before, outcome: Any) -> None:
    """Write down an outcome that a test has confirmed, if anybody wants to know."""
    if not (file := os.environ.get(VARIABLE)):
        return
    parts = outcome if isinstance(outcome, tuple) else () if outcome is None else (outcome,)
    kind = "nothing" if not parts else "rejected" if isinstance(parts[0], Rejection) else "accepted"
    _write(file, before, kind, [type(part).__name__ for part in parts])


def record_ended(before: Before) -> None:
    """Write down that a test has confirmed the end of an aggregate, if anybody wants to know."""
    if file := os.environ.get(VARIABLE):
        _write(file, before, ENDED, [])


def read(file: Path) -> Iterator[Evidence]:
    """What was written down. Raises ValueError for a file of something else."""
    for line in file.read_text().splitlines():
        yield msgspec.json.decode(line, type=Evidence)


def name_of(aggregate: type[Any]) -> str:
    """How an aggregate's class is called in the evidence."""
    return f"{aggregate.__module__}:{aggregate.__qualname__}"


def kinds_of(aggregate: type[Any]) -> list[str]:
    """The kinds of states that can be told apart, in the order of their declaration.

    They are the combinations of what stands in fields that are unions of structs, enums or literals. An aggregate
    without such fields is new, existing, or ended if it can be. Where there are too many combinations, none are listed.
    """
    hints = hints_of(aggregate)
    choices = [_choices(hints[name]) for name in aggregate.__struct_fields__]
    if not any(choices):
        return ["new", "existing", *([ENDED] if contract_of(aggregate).can_end else [])]
    combinations = list(product(*filter(None, choices)))
    return [", ".join(each) for each in combinations] if len(combinations) <= _KINDS_MAX else []


def kind_of(state: Any, version: int) -> str:
    """The kind of a state."""
    hints = hints_of(type(state))
    values = [getattr(state, name) for name in state.__struct_fields__ if _choices(hints[name])]
    without = ENDED if state.is_ended() else "existing" if version else "new"
    return ", ".join(_called(value) for value in values) or without


def _choices(annotation: Any) -> list[str]:
    """What can stand in a field, if that can be counted."""
    annotation, _ = opened(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [member.name for member in annotation]
    if get_origin(annotation) is Literal:
        return [_called(member) for member in get_args(annotation)]
    members = union_members(annotation)
    if len(members) > 1 and all(
        member is types.NoneType or (isinstance(member, type) and issubclass(member, msgspec.Struct))
        for member in members
    ):
        return ["None" if member is types.NoneType else member.__name__ for member in members]
    return []


def _called(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    return type(value).__name__ if isinstance(value, msgspec.Struct) else str(value)


def _write(file: str, before: Before, outcome: str, parts: list[str]) -> None:
    aggregate, state = name_of(type(before.state)), kind_of(before.state, before.version)
    found = Evidence(aggregate, state, type(before.command).__name__, outcome, parts)
    line = msgspec.json.encode(found) + b"\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)  # in one piece: other test processes write into the same file
    finally:
        os.close(descriptor)
