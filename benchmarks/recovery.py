"""A worker takes a partition with a million commits: from a checkpoint, and from the log alone.

`python -m benchmarks.recovery` does so on the log that the environment names (MAGNETAR_BROKER).
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry, Log, Message
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import collect_rarely, provision
from magnetar.pipelines.settings import load_settings, open_log
from magnetar.pipelines.worker import Worker
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
NOTE = "x" * 90
LAST_OF_BATCH = 2**31 - 1


class Recovered(NamedTuple):
    """How long it took, the version that an aggregate was found to have, and the one that it has."""

    name: str
    seconds: float
    version: int
    expected: int


def publish(log: Log, commands: int) -> None:
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


class RevisedBox(Box, wire_name="Box"):
    """The next release, which cannot use the checkpoints of this one."""

    revision = 2


def worker_on(log: Log, box: type[Box] = Box) -> Worker:
    """The shipped worker, with its defaults."""
    clock, source = SystemClock(), random.SystemRandom()
    name = f"w{source.randbytes(4).hex()}"
    return Worker(log, box, SCHEMA, partitions=1, name=name, clock=clock, random=source)


def recover(log: Log, expected: int, box: type[Box]) -> Recovered:
    """Publish one command, measure until it is decided, and read its commit."""
    worker = worker_on(log, box)
    publish(log, 1)
    start = time.perf_counter()
    while not worker.decided:
        worker.step(timeout_seconds=1)
    seconds = time.perf_counter() - start
    worker.close()
    name = "from a checkpoint" if box is Box else "from the log"
    return Recovered(name, seconds, last_commit(log).version, expected)


def last_commit(log: Log) -> Commit:
    """The commit of the command that was decided last."""
    end = log.end(EVENTS, 0)
    if end is None:
        raise AssertionError("the log is empty")
    before = MessageId(end.ledger, end.entry - 1, LAST_OF_BATCH) if end.entry else MessageId(end.ledger - 1)
    reader, messages = log.reader(EVENTS, 0, after=before), list[Message]()
    while not messages or messages[-1].id < end:
        messages += reader.read(messages_max=1000, timeout_seconds=1)
    reader.close()
    return CommitCodec(SCHEMA).decode(messages[-1].payload)


def run(commands: int) -> Iterator[Recovered]:
    """On the embedded log."""
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "data", SystemClock())
        yield from run_on(log, commands)
        log.close()


def run_on(log: Log, commands: int) -> Iterator[Recovered]:
    """Decide the backlog with checkpoints; recover from one; recover without one, as a raised revision does."""
    provision(boxes, log)
    publish(log, commands)
    worker = worker_on(log)
    while worker.decided < commands:
        worker.step(timeout_seconds=1)
    worker.close()
    had = -(-commands // AGGREGATES)
    yield recover(log, had, Box)
    yield recover(log, had + 1, RevisedBox)


def main() -> None:
    """A million commits, unless told otherwise, on the log of the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=1_000_000)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    collect_rarely()
    log = open_log(load_settings(), SystemClock())
    for found in run_on(log, arguments.commands):
        print(f"{found.name}: {found.seconds:.1f} s, version {found.version} of {found.expected}", flush=True)
    log.close()


if __name__ == "__main__":
    main()
