"""From the log into the tables of rows and of a fold, by the shipped projector, with the mirror fed before."""

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Entry, Log
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import MessageId, partition_of, uuid7
from magnetar.schemas.command_message import CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import CommitCodec, Source, write_source

from magnetar import Fold, Meta, Pipeline, Rows

from .broker import stored
from .domain import Box, BoxPut
from .measured import Measured, Took
from .worker import EVENTS, NOTE, PARTITIONS, SCHEMA

AT_US: Final = 1_767_225_600_000_000
AT: Final = datetime.fromtimestamp(AT_US / 1e6, UTC)
KEYS: Final = 100_000


class Putting(Rows):
    """What was put in."""

    box: str
    amount: int
    total: int

    @classmethod
    def project(cls, event: BoxPut, meta: Meta) -> tuple[Self, ...]:
        return (cls(meta.id, event.amount, event.total),)


class Content(Fold):
    """What is in each box."""

    total: int = 0
    puts: int = 0

    def apply(self, event: BoxPut) -> Self:
        return self.replace(total=event.total, puts=self.puts + 1)


def append(log: Log, events: int, keys: int, partitions: int = PARTITIONS) -> None:
    """Write so many events of so many boxes into the log, as a worker would."""
    codec, owner = CommitCodec(SCHEMA), bytes(16)
    by_partition: dict[int, list[tuple[str, int]]] = {}
    for n in range(events):
        by_partition.setdefault(partition_of(f"box-{n % keys}", partitions), []).append((f"box-{n % keys}", n // keys))
    source = write_source(Source(MessageId(1), AT_US // 1000, "00000000-0000-0000-0000-000000000007"))
    for partition, each in by_partition.items():
        appender = log.fence(EVENTS, partition, schema=SCHEMA.commit_json, name="bench")
        entries = [Entry("", codec.claim(owner, 0, "bench"))]
        for number, (id, version) in enumerate(each, 1):
            envelope = CommandEnvelope(id, uuid7(AT_US // 1000, number), AT_US + number)
            tail = codec.accepted([BoxPut(1, version + 1, NOTE)])
            ids = encode_ids_to_time(envelope)
            entries.append(Entry(id, codec.encode(number, owner, envelope, version, ids, source, tail)))
        for start in range(0, len(entries), 5000):
            appender.append(entries[start : start + 5000], timeout_seconds=60)
        appender.close()


def feed(log: Log, store: Store, data: Path, pipeline: Pipeline) -> Took:
    """Feed all tables of a pipeline to the end of the log; returns how long it took."""
    projector = Projector(pipeline, log, store, Settings(data=data), clock=SystemClock())
    projector.prepare()
    projector.open()
    start = Took.now()
    while projector.step():
        pass
    took = Took.since(start)
    projector.close()
    return took


def bare(log: Log, take: Callable[[Meta, BoxPut], object]) -> Took:
    """The Python of it alone: reads the log, decodes each commit, calls the user's function; nothing is inserted."""
    codec, start = CommitCodec(SCHEMA), Took.now()
    for partition in range(PARTITIONS):
        for messages in stored(log, EVENTS, partition):
            for commit in (codec.decode(message.payload) for message in messages if message.payload[0]):
                meta = Meta(commit.aggregate_id, commit.version + 1, AT, None, None)
                for event in commit.events:
                    take(meta, event)
    return Took.since(start)


def project(meta: Meta, event: BoxPut) -> None:
    """What a user's Rows does with an event."""
    Putting.project(event, meta)


def fold() -> Callable[[Meta, BoxPut], object]:
    """What a user's Fold does with an event, and the states that it comes to."""
    states: dict[str, Content] = {}

    def take(meta: Meta, event: BoxPut) -> None:
        states[meta.id] = states.get(meta.id, Content()).apply(event)

    return take


class Kind(NamedTuple):
    """A kind of projection, what is called for each of its events, and what of its view is counted."""

    projection: Any
    take: Callable[[Meta, BoxPut], object]
    counted: str


def run(events: int, keys: int = KEYS) -> Iterator[tuple[Measured, Measured]]:
    """Measure each over the same log, with the mirror fed before: its Python alone, and all of it."""
    kinds = {
        "rows": Kind(Putting, project, "SELECT count() FROM boxes.putting"),
        "fold": Kind(Content, fold(), "SELECT sum(puts) FROM boxes.content"),
    }
    with tempfile.TemporaryDirectory() as folder:
        log, data = SqliteLog(Path(folder) / "data", SystemClock()), Path(folder) / "data"
        provision(Pipeline("boxes", aggregates=[Box], partitions=PARTITIONS), log)
        append(log, events, keys)
        store = Store(embedded_dsn(data))
        feed(log, store, data, Pipeline("boxes", aggregates=[Box], partitions=PARTITIONS))
        for name, kind in kinds.items():
            alone = Measured.of("its Python alone", events, bare(log, kind.take), events)
            pipeline = Pipeline("boxes", aggregates=[Box], projections=[kind.projection], partitions=PARTITIONS)
            took = feed(log, store, data, pipeline)
            ((counted,),) = store.query(kind.counted)
            yield alone, Measured.of(name, events, took, counted)
        store.close()
        log.close()
