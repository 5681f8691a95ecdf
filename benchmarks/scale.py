"""Whether the worker keeps its rate with more aggregates and event types, and what an aggregate takes of memory."""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path
from statistics import median
from types import new_class
from typing import Any, NamedTuple, Self

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Topic, TopicKind, partition_of, uuid7
from magnetar.schemas.command_message import CommandCodec, CommandEnvelope

from magnetar import Aggregate, Command, Event, Pipeline

PARTITIONS = 16
MEASURED = 100_000
TIMES = 3
CASES = ((1_000, 2), (100_000, 2), (1_000_000, 2), (1_000, 10), (1_000, 40))
LINES_MAX = 5
STATE = {"customer": str, "street": str, "city": str, "lines": tuple[str, ...], "pieces": int, "total": float}
SEED = {"customer": "", "street": "", "city": "", "lines": (), "pieces": 0, "total": 0.0}


class Scaled(NamedTuple):
    """One case."""

    aggregates: int
    types: int
    per_second: float
    bytes_per_aggregate: float


def order_with(types: int) -> type[Any]:
    """An order with so many kinds of events, each with a command of its own, and a state of about 300 bytes."""
    commands = [message(Command, f"Do{n}") for n in range(types)]
    events = [message(Event, f"Done{n}") for n in range(types)]
    event_of = dict(zip(commands, events, strict=True))

    def execute(_: Any, command: Any) -> Any:
        return event_of[type(command)](command.sku, command.pieces, command.price, command.note)

    def apply(self: Any, event: Any) -> Any:
        return self.replace(
            customer=event.note[:20],
            street=event.note[20:40],
            city=event.note[40:60],
            lines=(*self.lines[-LINES_MAX + 1 :], event.sku),
            pieces=self.pieces + event.pieces,
            total=self.total + event.price,
        )

    execute.__annotations__ = {"command": union(commands), "return": union(events)}
    apply.__annotations__ = {"event": union(events), "return": Self}
    return declared("Order", Aggregate, STATE, {**SEED, "execute": execute, "apply": apply})


def message(kind: type[Any], name: str) -> type[Any]:
    """A command or an event with four fields."""
    return declared(name, kind, {"sku": str, "pieces": int, "price": float, "note": str}, {})


def declared(name: str, base: type[Any], fields: dict[str, Any], others: dict[str, Any]) -> type[Any]:
    """What a class statement makes."""
    return new_class(name, (base,), {}, lambda namespace: namespace.update(__annotations__=fields, **others))


def union(classes: list[type[Any]]) -> Any:
    """The classes joined by `|`."""
    return reduce(or_, classes)


def resident_bytes() -> int:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def measure(aggregates: int, types: int) -> Scaled:
    """1. Gives each aggregate a first command. 2. Measures the rate of backlogs at random over all of them: the middle
    one of three, since a core that others use takes a fifth away for seconds."""
    order = order_with(types)
    pipeline = Pipeline("orders", aggregates=[order], partitions=PARTITIONS)
    schema, clock, source = pipeline.schemas["Order"], SystemClock(), random.Random(1)
    codec = CommandCodec(schema)
    commands: list[type[Any]] = list(schema.commands.values())
    topic = Topic("orders", "Order", TopicKind.COMMANDS)

    def publish(log: SqliteLog, numbers: Iterator[int]) -> int:
        now_ms, publisher = clock.now_ms(), log.publisher(topic, schema=schema.command_json)
        entries: dict[int, list[Entry]] = {}
        count = 0
        for n in numbers:
            id, command = f"order-{n}", commands[count % types]
            count += 1
            envelope = CommandEnvelope(id, uuid7(now_ms + count // 100, source.getrandbits(74)), now_ms * 1000)
            value = command(f"sku-{n % 997}", 2, 9.9, f"{n:020}" * 4)
            waiting = entries.setdefault(partition_of(id, PARTITIONS), [])
            waiting.append(Entry(id, codec.encode(envelope, value)))
            if len(waiting) == 5000:
                publisher.publish(partition_of(id, PARTITIONS), waiting, timeout_seconds=60)
                waiting.clear()
        for partition, waiting in entries.items():
            publisher.publish(partition, waiting, timeout_seconds=60)
        publisher.close()
        return count

    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "data", clock)
        provision(pipeline, log)
        worker = Worker(log, order, schema, partitions=PARTITIONS, name="w", clock=clock, random=random.SystemRandom())
        before = resident_bytes()
        decided = publish(log, iter(range(aggregates)))
        while worker.decided < decided:
            worker.step(timeout_seconds=1)
        after = resident_bytes()
        seconds: list[float] = []
        for _ in range(TIMES):
            decided += publish(log, (source.randrange(aggregates) for _ in range(MEASURED)))
            start = time.perf_counter()
            while worker.decided < decided:
                worker.step(timeout_seconds=1)
            seconds.append(time.perf_counter() - start)
        worker.close()
        log.close()
    return Scaled(aggregates, types, MEASURED / median(seconds), (after - before) / aggregates)


def run() -> Iterator[Scaled]:
    """All cases."""
    for aggregates, types in CASES:
        yield measure(aggregates, types)
