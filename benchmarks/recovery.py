"""A worker takes a partition with a million commits: from a checkpoint, and from the log alone."""

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.worker import Worker, WorkerOptions
from magnetar.schemas import MessageId, Topic, TopicKind, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope
from magnetar.schemas.commit import Commit, CommitCodec

from magnetar import Pipeline

from .domain import Box, Put

AGGREGATES = 100_000
boxes = Pipeline("boxes", aggregates=[Box], partitions=1)
SCHEMA = boxes.schemas["Box"]
COMMANDS = Topic("boxes", "Box", TopicKind.COMMANDS)
EVENTS = Topic("boxes", "Box", TopicKind.EVENTS)
CHECKPOINTS = Topic("boxes", "Box", TopicKind.CHECKPOINTS)
NOTE = "x" * 90
NEVER = 1 << 40


class Recovered(NamedTuple):
    """How long it took, the version that an aggregate was found to have, and the one that it has."""

    name: str
    seconds: float
    version: int
    expected: int


def publish(log: SqliteLog, commands: int) -> None:
    """A backlog over a hundred thousand aggregates, made at the rate of ten thousand a second."""
    codec, now_ms = CommandCodec(SCHEMA), time.time_ns() // 1_000_000 - commands // 10
    publisher, entries = log.publisher(COMMANDS, schema=SCHEMA.command_json), list[Entry]()
    for n in range(commands):
        id = f"box-{n % AGGREGATES}"
        made_ms = now_ms + n // 10
        envelope = CommandEnvelope(id, uuid7(made_ms, n), made_ms * 1000)
        entries.append(Entry(id, codec.encode(envelope, Put(1, NOTE))))
        if len(entries) == 5000:
            publisher.publish(0, entries, timeout_seconds=60)
            entries = []
    publisher.publish(0, entries, timeout_seconds=60)
    publisher.close()


def worker_on(log: SqliteLog, *, checkpoints: bool) -> Worker:
    """The shipped worker, with its defaults, or with rounds so rare that it neither writes nor finds one."""
    options = WorkerOptions() if checkpoints else WorkerOptions(checkpoint_commits=NEVER)
    clock, source = SystemClock(), random.SystemRandom()
    name = f"w{source.randbytes(4).hex()}"
    return Worker(log, Box, SCHEMA, partitions=1, name=name, clock=clock, random=source, options=options)


def recover(log: SqliteLog, expected: int, *, checkpoints: bool) -> Recovered:
    """Publish one command, measure until it is decided, and read its commit."""
    worker = worker_on(log, checkpoints=checkpoints)
    publish(log, 1)
    start = time.perf_counter()
    while not worker.decided:
        worker.step(timeout_seconds=1)
    seconds = time.perf_counter() - start
    worker.close()
    name = "from a checkpoint" if checkpoints else "from the log"
    return Recovered(name, seconds, last_commit(log).version, expected)


def last_commit(log: SqliteLog) -> Commit:
    """The commit of the command that was decided last."""
    end = log.end(EVENTS, 0)
    if end is None:
        raise AssertionError("the log is empty")
    reader = log.reader(EVENTS, 0, after=MessageId(end.ledger - 1))
    (message,) = reader.read(messages_max=1, timeout_seconds=1)
    reader.close()
    return CommitCodec(SCHEMA).decode(message.payload)


def run(commands: int) -> Iterator[Recovered]:
    """Decide the backlog with checkpoints; recover from one; drop the topic's blocks; recover from the log."""
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "data", SystemClock())
        provision(boxes, log)
        publish(log, commands)
        worker = worker_on(log, checkpoints=True)
        while worker.decided < commands:
            worker.step(timeout_seconds=1)
        worker.close()
        had = -(-commands // AGGREGATES)
        yield recover(log, had, checkpoints=True)
        end = log.end(CHECKPOINTS, 0)
        if end is not None:
            log.trim(CHECKPOINTS, 0, through=end)
        yield recover(log, had + 1, checkpoints=False)
        log.close()
