"""From a backlog of commands to durable commits, beside a bare loop that does the same I/O without deciding."""

import random
import time
from collections.abc import Callable, Iterator

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry, Log
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import EMBEDDED, Settings, open_log
from magnetar.pipelines.worker import Worker
from magnetar.schemas import ReadRule, Topic, TopicKind, Verdict, partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope
from magnetar.schemas.commit import CommitCodec, Source, read_head, write_source

from magnetar import Pipeline

from .broker import fresh, stored
from .domain import Box, BoxPut, Put
from .measured import Measured, Took

AGGREGATES = 10_000
PARTITIONS = 16
CHUNK = 1000
NOTE = "x" * 90
boxes = Pipeline("boxes", aggregates=[Box], partitions=PARTITIONS)
SCHEMA = boxes.schemas["Box"]
COMMANDS = Topic("boxes", "Box", TopicKind.COMMANDS)
EVENTS = Topic("boxes", "Box", TopicKind.EVENTS)


def fill(log: Log, commands: int, metadata_of: Callable[[int], dict[str, str]] | None = None) -> None:
    """Publish a backlog, spread over ten thousand aggregates, each command with the metadata of its number."""
    codec, now_ms = CommandCodec(SCHEMA), time.time_ns() // 1_000_000
    entries: dict[int, list[Entry]] = {}
    for n in range(commands):
        id = f"box-{n % AGGREGATES}"
        metadata = {} if metadata_of is None else metadata_of(n)
        envelope = CommandEnvelope(id, uuid7(now_ms, n), now_ms * 1000, metadata=metadata)
        entries.setdefault(partition_of(id, PARTITIONS), []).append(Entry(id, codec.encode(envelope, Put(1, NOTE))))
    publisher = log.publisher(COMMANDS, schema=SCHEMA.command_json)
    for partition, batch in entries.items():
        for start in range(0, len(batch), 5000):
            publisher.publish(partition, batch[start : start + 5000], timeout_seconds=60)
    publisher.close()


def count(log: Log) -> int:
    """How many commits count, read back by the read rule."""
    counted = 0
    for partition in range(PARTITIONS):
        rule = ReadRule()
        for messages in stored(log, EVENTS, partition):
            for message in messages:
                number, owner, _ = read_head(message.payload)
                counted += rule.judge(number, owner) is Verdict.COUNTS
    return counted


def decide(_: Settings, log: Log, commands: int) -> Took:
    """Run the shipped worker until the backlog is decided."""
    worker = Worker(
        log, Box, SCHEMA, partitions=PARTITIONS, name="bench", clock=SystemClock(), random=random.SystemRandom()
    )
    start = Took.now()
    while worker.decided < commands:
        worker.step(timeout_seconds=1)
    took = Took.since(start)
    worker.close()
    return took


def bare(settings: Settings, log: Log, commands: int) -> Took:
    """Receive, decode, encode, append, acknowledge: the same calls, and no states, ids or decisions."""
    if settings.broker != EMBEDDED:
        from .bare_pulsar import BareLoop

        return BareLoop(settings, log, SCHEMA, COMMANDS, EVENTS).run(commands)
    codec, commits, owner = CommandCodec(SCHEMA), CommitCodec(SCHEMA), bytes(16)
    consumer = log.consumer(COMMANDS, name="bare")
    incarnation = log.describe(COMMANDS).incarnation
    appenders = {p: log.fence(EVENTS, p, schema=SCHEMA.commit_json, name="bare") for p in range(PARTITIONS)}
    for appender in appenders.values():
        appender.append([Entry("", commits.claim(owner, 0, "bare"))], timeout_seconds=10)
    numbers, done = dict.fromkeys(range(PARTITIONS), 0), 0
    start = Took.now()
    while done < commands:
        batch = consumer.receive(messages_max=CHUNK, timeout_seconds=1)
        if batch is None:
            continue
        number, entries = numbers[batch.partition], []
        for m in batch.messages:
            number += 1
            message = codec.decode(m.payload)
            source = write_source(Source(m.id, m.published_at_ms, incarnation))
            tail = commits.accepted([BoxPut(message.command.amount, number, message.command.note)])
            entries.append(
                Entry(m.key, commits.encode(number, owner, message.envelope, 0, message.ids_to_time, source, tail))
            )
        appenders[batch.partition].append(entries, timeout_seconds=30)
        consumer.acknowledge(batch.partition, batch.messages[-1].id)
        numbers[batch.partition] = number
        done += len(entries)
    took = Took.since(start)
    consumer.close()
    return took


def run(broker: Settings, commands: int) -> Iterator[Measured]:
    """Measure both, each on a log of its own."""
    for name, loop in (("bare loop", bare), ("worker", decide)):
        with fresh(broker) as settings:
            log = open_log(settings, SystemClock())
            provision(boxes, log)
            fill(log, commands)
            took = loop(settings, log, commands)
            yield Measured.of(name, commands, took, count(log))
            log.close()
