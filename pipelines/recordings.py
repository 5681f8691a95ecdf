"""A small recorded history as a file of its own: what tests replay, without a log."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from magnetar.schemas import SettingsError
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.commit import NO_SOURCE, Commit, Parked
from magnetar.schemas.ids import NIL

from .log import Log
from .lookback import fields_of
from .pipeline import Pipeline
from .replaying import Judging, Recorded, Replayed, recorded

_NOBODY: Final = b"\0" * 16


class _Line(msgspec.Struct, omit_defaults=True):
    """One commit and its command. Messages are objects with their type and their fields."""

    aggregate: str
    id: str
    version: int
    at_us: int
    outcome: str
    command: dict[str, Any] | None = None
    events: list[dict[str, Any]] = []
    rejection: dict[str, Any] | None = None
    reason: str = ""
    actor: str | None = None
    correlation_id: str | None = None


def record(pipeline: Pipeline, log: Log, file: Path, *, aggregates: Iterable[str], sample: int | None) -> int:
    """Write what is recorded of some aggregates to a file, a line of JSON for each commit; returns how many.

    What stands there can be read by whoever reads the file: fields of commands and events are in it.
    """
    encode = msgspec.json.Encoder().encode
    lines = [
        encode(_line(aggregate, each.commit, each.command))
        for aggregate in aggregates
        for partition in recorded(pipeline, log, aggregate, sample=sample)
        for each in partition
        if each.commit is not None
    ]
    try:
        file.write_bytes(b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise SettingsError(
            f"The history cannot be written to {file}: {error.strerror}.", cure="Name a file in a folder that is there."
        ) from error
    return len(lines)


def _line(aggregate: str, commit: Commit, command: Any) -> _Line:
    return _Line(
        aggregate,
        commit.aggregate_id,
        commit.version,
        commit.at_us,
        commit.outcome,
        None if command is None else fields_of(command),
        [fields_of(event) for event in commit.events],
        None if commit.rejection is None else fields_of(commit.rejection),
        "" if commit.parked is None else commit.parked.reason,
        commit.actor,
        commit.correlation_id,
    )


def replay_file(pipeline: Pipeline, file: Path) -> list[Replayed]:
    """Decide the commands of a recorded history once more. Raises SettingsError for a file that is none."""
    try:
        lines = [msgspec.json.decode(line, type=_Line) for line in file.read_bytes().splitlines()]
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(
            f"{file} is no recorded history: {error}.", cure="`magnetar diff MODULE --record FILE` writes one."
        ) from error
    return [_replayed(pipeline, name, [line for line in lines if line.aggregate == name]) for name in pipeline.schemas]


def _replayed(pipeline: Pipeline, aggregate: str, lines: list[_Line]) -> Replayed:
    judging, schema = Judging(pipeline, aggregate), pipeline.schema_of(aggregate)
    judging.judge(_recorded(schema, line, nth) for nth, line in enumerate(lines, start=1))
    return judging.replayed()


def _recorded(schema: AggregateSchema, line: _Line, nth: int) -> Recorded:
    place = f"{schema.context}/{schema.aggregate}, line {nth}"
    try:
        events = tuple(_message(schema.events, each) for each in line.events)
        rejection = None if line.rejection is None else _message(schema.rejections, line.rejection)
    except (KeyError, msgspec.ValidationError) as error:
        return Recorded(line.id, place, None, f"It cannot be read: {error}.")
    commit = _commit(line, nth, events, rejection)
    if line.command is None:
        return Recorded(line.id, place, commit)
    try:
        return Recorded(line.id, place, commit, command=_message(schema.commands, line.command))
    except (KeyError, msgspec.ValidationError):
        name = f"{line.command.get('type')}, which {schema.aggregate} does not declare so"
        return Recorded(line.id, place, commit, unknown=f"The command is {name}.")


def _message(declared: Any, fields: dict[str, Any]) -> Any:
    """A message from its wire name and its fields."""
    found = {name: value for name, value in fields.items() if name != "type"}
    return msgspec.convert(found, declared[fields["type"]])


def _commit(line: _Line, nth: int, events: tuple[Any, ...], rejection: Any) -> Commit:
    return Commit(
        number=nth,
        owner=_NOBODY,
        aggregate_id=line.id,
        version=line.version,
        command_id=NIL,
        correlation_id=line.correlation_id,
        causation_id=None,
        actor=line.actor,
        at_us=line.at_us,
        metadata={},
        source=NO_SOURCE,
        producer=None,
        sequence=None,
        outcome=line.outcome,
        rejection=rejection,
        parked=Parked(line.reason, "") if line.reason else None,
        resolves=None,
        events=events,
    )


def replay(pipeline: Pipeline, file: Path | str) -> None:
    """Fail if the code decides a recorded history otherwise than it was decided, or does not fold it any more.

    `magnetar diff MODULE --record FILE` writes the file. Raises AssertionError with what differs, and SettingsError for
    a file that is no recorded history.
    """
    __tracebackhide__ = True
    differing = [each for each in replay_file(pipeline, Path(file)) if not each.is_same]
    if differing:
        raise AssertionError("\n".join(_said(each) for each in differing))


def _said(found: Replayed) -> str:
    lines = [f"{found.aggregate} makes something else of its recorded history:"]
    for kind in found.otherwise:
        lines.append(f"  {kind.recorded} → {kind.now}: {kind.commands} commands, for example")
        lines += [
            f"    {each.aggregate_id} at version {each.version}, {each.command}:\n"
            f"      {each.recorded}\n      {each.now}"
            for each in kind.examples
        ]
    for event in found.not_folding:
        places = ", ".join(f"{each.aggregate_id} at version {each.version}" for each in event.examples)
        lines.append(f"  {event.event or 'a commit'} does not fold, for example of {places}: {event.error}")
    return "\n".join(lines)
