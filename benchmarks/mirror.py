"""From the log into ClickHouse, beside inserting the same blocks ready-made."""

from collections.abc import Iterator
from pathlib import Path

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Log
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings, open_log
from magnetar.projections.columns import literal, structure
from magnetar.projections.container import container
from magnetar.projections.leased_table import INSERT_SETTINGS
from magnetar.projections.store import Store, embedded_dsn
from magnetar.projections.tables import MirrorTables

from .broker import fresh, stored
from .measured import Measured, Took
from .worker import EVENTS, PARTITIONS, SCHEMA, boxes, decide, fill

BLOCK = 50_000
DEADLINE_SECONDS = 600


def counted(store: Store) -> int:
    """The events that stand in the table."""
    ((rows,),) = store.query("SELECT count() FROM boxes.BoxPut")
    return int(rows)


def mirror(log: Log, store: Store, folder: Path, events: int) -> Took:
    """The shipped projector, from nothing to the end of the log."""
    return mirrored(log, store, Settings(data=folder), events)


def in_python(log: Log, store: Store, folder: Path, events: int) -> Took:
    """The same for an engine that cannot decode the commits."""
    return mirrored(log, store, Settings(data=folder, decoding="python"), events)


def mirrored(log: Log, store: Store, settings: Settings, events: int) -> Took:
    """The projector with these settings."""
    projector = Projector(boxes, log, store, settings, clock=SystemClock())
    projector.prepare()
    projector.open()
    done, start = 0, Took.now()
    while done < events:
        done += projector.step()
        assert Took.since(start).seconds < DEADLINE_SECONDS, f"{done} of {events} events were mirrored in time"
    took = Took.since(start)
    projector.close()
    return took


def ready_made(log: Log, store: Store, folder: Path, _: int) -> Took:
    """The same tables, the same statements and the same blocks, written to files before."""
    projector = Projector(boxes, log, store, Settings(data=folder), clock=SystemClock())
    projector.prepare()
    files: list[tuple[int, Path]] = []
    for partition in range(PARTITIONS):
        payloads = [m.payload for messages in stored(log, EVENTS, partition) for m in messages if m.payload[0]]
        for first in range(0, len(payloads), BLOCK):
            path = folder / f"{partition}-{first}.avro"
            path.write_bytes(b"".join(container(SCHEMA.commit_json, payloads[first : first + BLOCK])))
            files.append((partition, path))
    tables = MirrorTables(SCHEMA, partitions=PARTITIONS)
    start = Took.now()
    for partition, path in files:
        insert(store, tables, partition, path)
    took = Took.since(start)
    projector.close()
    return took


def insert(store: Store, tables: MirrorTables, partition: int, path: Path) -> None:
    """Decode a block once, and fill both tables from it."""
    columns = structure(SCHEMA.commit_schema)
    store.command(f"CREATE TEMPORARY TABLE block ({columns}) ENGINE = Memory")
    source = f"FROM file({literal(str(path))}, 'Avro', {literal(columns)})"
    store.command(f"INSERT INTO block SELECT * {source} SETTINGS {INSERT_SETTINGS}")
    for table, statement in tables.inserts(SCHEMA.commit_json, "FROM block", partition, "1").items():
        store.command(f"{statement} SETTINGS insert_deduplication_token = '{path.name}-{table}', {INSERT_SETTINGS}")
    store.command("DROP TEMPORARY TABLE block")


def run(broker: Settings, events: int) -> Iterator[Measured]:
    """Measure all three, each on an engine of its own over the same log."""
    with fresh(broker) as settings:
        log = open_log(settings, SystemClock())
        provision(boxes, log)
        fill(log, events)
        decide(settings, log, events)
        ways = {"ready-made blocks": ready_made, "mirror": mirror, "mirror in Python": in_python}
        for name, fill_tables in ways.items():
            data = settings.data.parent / name
            data.mkdir()
            store = Store(embedded_dsn(data))
            took = fill_tables(log, store, data, events)
            yield Measured.of(name, events, took, counted(store))
            store.close()
        log.close()
