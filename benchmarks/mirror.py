"""From the log into ClickHouse, beside inserting the same blocks ready-made."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.projections.columns import literal, structure
from magnetar.projections.container import container
from magnetar.projections.leased_table import INSERT_SETTINGS
from magnetar.projections.store import Store, embedded_dsn
from magnetar.projections.tables import MirrorTables

from .worker import EVENTS, PARTITIONS, SCHEMA, Measured, boxes, decide, fill

BLOCK = 50_000


def counted(store: Store) -> int:
    """The events that stand in the table."""
    ((rows,),) = store.query("SELECT count() FROM boxes.BoxPut")
    return int(rows)


def mirror(log: SqliteLog, store: Store, folder: Path) -> float:
    """The shipped projector, from nothing to the end of the log; returns the seconds."""
    projector = Projector(boxes, log, store, Settings(data=folder), clock=SystemClock())
    projector.prepare()
    projector.open()
    start = time.perf_counter()
    while projector.step():
        pass
    seconds = time.perf_counter() - start
    projector.close()
    return seconds


def ready_made(log: SqliteLog, store: Store, folder: Path) -> float:
    """The same tables, the same statements and the same blocks, written to files before; returns the seconds."""
    projector = Projector(boxes, log, store, Settings(data=folder), clock=SystemClock())
    projector.prepare()
    files: list[tuple[int, Path]] = []
    for partition in range(PARTITIONS):
        reader, number = log.reader(EVENTS, partition, after=None), 0
        while messages := reader.read(messages_max=BLOCK, timeout_seconds=0):
            path = folder / f"{partition}-{number}.avro"
            parts = container(SCHEMA.commit_json, [m.payload for m in messages if m.payload[0]])
            path.write_bytes(b"".join(parts))
            files.append((partition, path))
            number += 1
    tables = MirrorTables(SCHEMA, partitions=PARTITIONS)
    start = time.perf_counter()
    for partition, path in files:
        source = f"FROM file({literal(str(path))}, 'Avro', {literal(structure(SCHEMA.commit_schema))})"
        for table, statement in tables.inserts(SCHEMA.commit_json, source, partition, "1").items():
            store.command(f"{statement} SETTINGS insert_deduplication_token = '{path.name}-{table}', {INSERT_SETTINGS}")
    seconds = time.perf_counter() - start
    projector.close()
    return seconds


def run(commands: int) -> Iterator[Measured]:
    """Measure both, each on an engine of its own over the same log."""
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "data", SystemClock())
        provision(boxes, log)
        fill(log, commands)
        decide(log, commands)
        for name, fill_tables in (("ready-made blocks", ready_made), ("mirror", mirror)):
            data = Path(folder) / name
            data.mkdir()
            store = Store(embedded_dsn(data))
            seconds = fill_tables(log, store, data)
            yield Measured(name, commands / seconds, counted(store))
            store.close()
        log.close()
