"""What a run has left behind: the log against a pure replay of its commands, and against every row of the mirror."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Log, Message
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.reply import Reply
from magnetar.schemas import Rejection, TopicKind
from magnetar.schemas.command_message import CommandCodec, read_envelope
from magnetar.schemas.commit import Commit, CommitCodec

from examples.flights.flight import Flight
from examples.flights.pipeline import flights
from tests.counting import counting

SCHEMA = flights.schemas["Flight"]
DEADLINE_SECONDS = 30.0
Ask = Callable[[str], list[dict[str, Any]]]
"""Answers a query."""

EVENTS, COMMANDS = flights.topic("Flight", TopicKind.EVENTS), flights.topic("Flight", TopicKind.COMMANDS)
CODEC = CommitCodec(SCHEMA)


class Stored(NamedTuple):
    """Everything on one partition of the two topics."""

    commands: list[Message]
    events: list[Message]


def stored(data: Path) -> list[Stored]:
    """Read the topics from their start."""
    log = SqliteLog(data, SystemClock())
    try:
        return stored_in(log)
    finally:
        log.close()


def stored_in(log: Log) -> list[Stored]:
    """Read the topics of a log from their start."""
    return [
        Stored(*(list(_messages(log, topic, partition)) for topic in (COMMANDS, EVENTS)))
        for partition in range(flights.partitions)
    ]


class Watch:
    """Counts what stands on the event topic, often and cheaply."""

    def __init__(self, data: Path) -> None:
        paths = (data / "log" / str(EVENTS)).glob("[0-9]*.sqlite")
        self._files = [sqlite3.connect(f"file:{path}?mode=ro", uri=True) for path in paths]

    def messages(self) -> int:
        """How many there are: commits, and a few claims."""
        return sum(file.execute("SELECT ifnull(max(offset), 0) FROM messages").fetchone()[0] for file in self._files)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _messages(log: Log, topic: Any, partition: int) -> Iterator[Message]:
    end = log.end(topic, partition)
    if end is None:
        return
    reader = log.reader(topic, partition, after=None)
    last = None
    while last is None or last < end:
        messages = reader.read(messages_max=10_000, timeout_seconds=DEADLINE_SECONDS)
        assert messages, f"{topic} partition {partition} gives nothing behind {last}, and ends at {end}"
        yield from messages
        last = messages[-1].id
    reader.close()


# --- the log against its commands -----------------------------------------------------------------------------------


def wrong_in_history(logs: Sequence[Stored]) -> list[str]:
    """Where the commits are not what the commands, decided one after the other by the pure aggregate, make of them."""
    found = []
    decode = CommandCodec(SCHEMA).decode
    for partition, (sent, events) in enumerate(logs):
        states: dict[str, tuple[int, Flight]] = {}
        commands = once(sent)
        commits = [CODEC.decode(message.payload) for message in counting(events)]
        if len(commits) != len(commands):
            found.append(f"partition {partition}: {len(commands)} commands, {len(commits)} commits")
        for message, commit in zip(commands, commits, strict=False):
            command = decode(message.payload)
            id = command.envelope.aggregate_id
            version, flight = states.get(id, (0, Flight()))
            outcome: Any = flight.execute(command.command)
            if isinstance(outcome, Rejection):
                expected: Any = ("rejected", outcome, ())
            else:
                expected = ("accepted", None, (outcome,))
                states[id] = (version + 1, flight.apply(outcome))
            got = (commit.outcome, commit.rejection, commit.events)
            where = (commit.source.id, commit.command_id, commit.aggregate_id, commit.version)
            wanted = (message.id, command.envelope.command_id, id, version)
            if (where, got) != (wanted, expected):
                found.append(
                    f"partition {partition}, commit {commit.number}: {where} {got}, expected {wanted} {expected}"
                )
                break
    return found


def once(commands: Sequence[Message]) -> list[Message]:
    """The commands without those that repeat an earlier one's id: they are answered, and leave no commit."""
    first: dict[str, Message] = {}
    for message in commands:
        first.setdefault(read_envelope(message.payload)[0].command_id, message)
    return list(first.values())


def false_replies(replies: Sequence[bytes], logs: Sequence[Stored]) -> list[str]:
    """What a client was told and is no commit that counts."""
    counts = [{message.payload for message in counting(each.events)} for each in logs]
    told = [Reply.decode(payload) for payload in replies]
    return [f"a client was told {CODEC.decode(r.commit)}" for r in told if r.commit not in counts[r.partition]]


def registry(data: Path, sql: str) -> list[Any]:
    """Ask the file in which the workers share out the partitions."""
    with closing(
        sqlite3.connect(f"file:{data / 'log' / str(COMMANDS) / 'consumers.sqlite'}?mode=ro", uri=True)
    ) as file:
        return file.execute(sql).fetchall()


_LAST_FIRST = "SELECT payload FROM messages ORDER BY offset DESC LIMIT 100"


def unacknowledged(data: Path) -> int:
    """On how many partitions commits are stored whose commands are not acknowledged yet."""
    acknowledged = dict(registry(data, "SELECT partition, offset FROM acknowledged"))
    count = 0
    for partition in range(flights.partitions):
        path = data / "log" / str(EVENTS) / f"{partition}.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            decoded = (CODEC.decode(payload) for (payload,) in file.execute(_LAST_FIRST))
            last = next((commit for commit in decoded if commit.outcome != "claim"), None)
        count += last is not None and last.source.id.ledger > acknowledged.get(partition, 0)
    return count


# --- the log against the mirror -------------------------------------------------------------------------------------


def wrong_in_mirror(ask: Ask, logs: Sequence[Stored], generation: int | None = None) -> list[str]:
    """What one side has and the other lacks, row by row with all columns; of what is shown, or of a generation."""
    suffix = "" if generation is None else f"__g{generation}"
    commits = [
        (partition, CODEC.decode(message.payload))
        for partition, each in enumerate(logs)
        for message in counting(each.events)
    ]
    found = []
    for table, wanted in (
        (f"flight__commits{suffix}", (_commit_row(partition, commit) for partition, commit in commits)),
        (f"flight__events{suffix}", (row for partition, commit in commits for row in _event_rows(partition, commit))),
    ):
        columns = {row["name"]: row["type"] for row in ask(_COLUMNS.format(table=table))}
        selected = ", ".join(f"{_readable(name, kind)} AS `{name}`" for name, kind in columns.items())
        have = Counter(_frozen(row) for row in ask(f"SELECT {selected} FROM flights.{table}"))
        want = Counter(_frozen({**_absent(columns), **row}) for row in wanted)
        for what, rows in (("lacks", want - have), ("has without reason", have - want)):
            found += [f"{table} {what} {dict(row)}, {count} times" for row, count in list(rows.items())[:3]]
    return found


_COLUMNS = "SELECT name, type FROM system.columns WHERE database = 'flights' AND table = '{table}'"


def _readable(name: str, kind: str) -> str:
    """How a column is asked for, so that JSON says its value exactly."""
    if "DateTime64" in kind:
        return f"toUnixTimestamp64Micro(CAST(`{name}` AS {kind.replace('(3', '(6')}))"
    if kind.startswith("FixedString"):
        return f"hex(`{name}`)"
    return f"`{name}`"


def _absent(columns: dict[str, str]) -> dict[str, Any]:
    """What the fields of the other types are in a row."""
    return {name: _nothing(kind) for name, kind in columns.items() if "." in name}


def _nothing(kind: str) -> Any:
    if kind.startswith("Nullable"):
        return None
    return "" if "String" in kind else 0


def _frozen(row: dict[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset((name, str(sorted(v.items())) if isinstance(v, dict) else v) for name, v in row.items())


def _envelope(partition: int, commit: Commit) -> dict[str, Any]:
    names = ("number", "aggregate_id", "version", "command_id", "correlation_id", "causation_id", "actor", "metadata")
    return {"partition": partition, "at": commit.at_us, **{name: getattr(commit, name) for name in names}}


def _commit_row(partition: int, commit: Commit) -> dict[str, Any]:
    source = commit.source
    return {
        **_envelope(partition, commit),
        "owner": commit.owner.hex().upper(),
        "ledger": source.id.ledger,
        "entry": source.id.entry,
        "batch": source.id.batch,
        "published_at": source.published_at_ms * 1000,
        "incarnation": source.incarnation,
        "producer": commit.producer,
        "sequence": commit.sequence,
        "outcome": commit.outcome,
        "events": len(commit.events),
        "rejection": "" if commit.rejection is None else type(commit.rejection).__name__,
        "rejection_fields": "",
        "parked_reason": "",
        "parked_detail": "",
        "parked_command": None,
        "parked_sha256": None,
        "resolves": commit.resolves,
    }


def _event_rows(partition: int, commit: Commit) -> Iterator[dict[str, Any]]:
    for index, event in enumerate(commit.events, 1):
        name = type(event).__name__
        fields = {f"{name}.{field}": _plain(getattr(event, field)) for field in event.__struct_fields__}
        envelope = {**_envelope(partition, commit), "version": commit.version + index}
        yield {**envelope, "type": name, **fields}


def _plain(value: Any) -> Any:
    return round(value.timestamp() * 1_000_000) if isinstance(value, datetime) else value
