"""The mirror as the source of other tables: whether it has what the log has, and its events as the log has them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import Any, Final, NamedTuple

import msgspec
from fastavro import parse_schema, schemaless_reader
from magnetar.schemas import Event, MessageId, PartitionRefused, StoreUnavailable, wire_name
from magnetar.schemas.commit import Fact
from magnetar.schemas.derive import record_of
from magnetar.schemas.field_type import Json, Unknown
from magnetar.schemas.framing import read_long, read_map, write_bytes, write_long
from magnetar.schemas.read_rule import START, Mark

from .columns import literal, quoted
from .freshness import MIRROR
from .range_loop import Lease, Range
from .store import Store
from .tables import MirrorTables
from .views import EVENT_ENVELOPE

CHUNK_COMMITS: Final = 40_000
"""ClickHouse sorts by type and aggregate, and reads all rows of a partition and type for those of some commits: so many
commits are read at once, and kept as bytes until their ranges come."""

_SETTINGS: Final = {"output_format_avro_codec": "null", "max_threads": 1}
_ENVELOPE: Final[tuple[tuple[str, Json], ...]] = (
    ("number", "long"),
    ("aggregate_id", "string"),
    ("version", "long"),
    ("at", "long"),
    ("actor", ["null", "string"]),
    ("correlation_id", ["null", "string"]),
)
_SAID: Final = "cityHash64(aggregate_id, number, version + {})"
"""An event that a commit or a row says is there. Equal sums of these, and as many: the same events."""


class Reach(NamedTuple):
    """How far the mirror is on one partition, and where the log goes on."""

    last: int
    """It has all commits up to this one."""
    mark: Mark


class MirrorRanges:
    """A partition's ranges, from the mirror. See range_loop.Mirrored."""

    def __init__(self, reach: Reach, range_commits_max: int, insert: Callable[[Lease, Range], None]) -> None:
        self.last, self.mark = reach
        self.range_commits_max = range_commits_max
        self._insert = insert

    def insert(self, lease: Lease, inserted: Range, /) -> None:
        """Insert a range."""
        self._insert(lease, inserted)


class MirrorSource:
    """The generation of an aggregate's mirror that is shown."""

    def __init__(self, store: Store, tables: Callable[[], MirrorTables]) -> None:
        """`tables` says which generation that is just now."""
        self._store = store
        self.tables = tables

    def reach(self, partition: int) -> Reach:
        """How far it says that it is."""
        tables = self.tables()
        schema = tables.schema
        where = (
            f"`projection` = {literal(MIRROR)} AND generation = {tables.generation} "
            f"AND aggregate = {literal(f'{schema.context}/{schema.aggregate}')} AND partition = {partition}"
        )
        ((told,),) = self._store.query(f"SELECT max(number) FROM magnetar.progress WHERE {where}")
        rows = self._store.query(
            f"SELECT first, after, owner FROM magnetar.pending WHERE {where} "
            "ORDER BY epoch DESC, nonce DESC, first DESC LIMIT 1"
        )
        if not rows:
            return Reach(0, START)
        first, after, owner = rows[0]
        place = None if after is None else MessageId(*(int(part) for part in after.split(":")))
        return Reach(max(first - 1, told), Mark(place, None if owner is None else bytes.fromhex(owner), first))

    def verified(self, partition: int) -> Reach:
        """How far it is. Raises StoreUnavailable, naming partition and commit, if it has not each commit up to there
        once, with each of its events once; or if its columns are of other code."""
        reach, tables = self.reach(partition), self.tables()
        columns = self._store.query(f"DESCRIBE TABLE {tables.events}")
        if (name := tables.outgrown({row[0]: row[1] for row in columns})) is not None:
            raise self._unfit(partition, f"has no column {name} as this code declares it")
        if reach.last and (said := self._wrong(tables, partition, reach.last)) is not None:
            raise self._unfit(partition, said)
        return reach

    def _wrong(self, tables: MirrorTables, partition: int, last: int) -> str | None:
        where = f"WHERE partition = {partition} AND number <= {last}"
        said = f"arraySum(arrayMap(i -> {_SAID.format('i')}, range(1, events + 1)))"
        (found,) = self._store.query(
            f"SELECT count(), groupBitmap(toUInt64(number)), min(number), max(number), sum(events), sum({said}) "
            f"FROM {tables.commits} {where}"
        )
        count, different, first, newest, events, hashed = found
        if (count, different, first, newest) != (last, last, 1, last):
            return self._wrong_commit(tables, where, last)
        ((rows, rows_hashed),) = self._store.query(
            f"SELECT count(), sum({_SAID.format('0')}) FROM {tables.events} {where}"
        )
        if (rows, rows_hashed) == (events, hashed):
            return None
        differing = self._store.query(
            f"SELECT number FROM (SELECT number, reinterpretAsInt64({said}) AS said FROM {tables.commits} {where} "
            f"UNION ALL SELECT number, -reinterpretAsInt64({_SAID.format('0')}) FROM {tables.events} {where}) "
            "GROUP BY number HAVING sum(said) != 0 ORDER BY number LIMIT 1"
        )
        number = differing[0][0] if differing else 0
        return f"has other events of commit {number} than the commit says"

    def _wrong_commit(self, tables: MirrorTables, where: str, last: int) -> str:
        rows = self._store.query(
            f"SELECT number, nth FROM (SELECT number, row_number() OVER (ORDER BY number) AS nth "
            f"FROM {tables.commits} {where}) WHERE number != nth ORDER BY nth LIMIT 1"
        )
        if not rows:
            ((count,),) = self._store.query(f"SELECT count() FROM {tables.commits} {where}")
            return f"lacks commit {count + 1}, of {last} that were written down"
        number, nth = rows[0]
        return f"lacks commit {nth}" if number > nth else f"has commit {number} twice"

    def _unfit(self, partition: int, said: str) -> StoreUnavailable:
        name = self.tables().schema.aggregate
        return StoreUnavailable(
            f"The mirror of {name} {said}, on partition {partition}: nothing can be rebuilt from it.",
            cure=f"`magnetar rebuild` with the pipeline's module and {name} fills a new mirror from the topics. Or "
            "leave `--from mirror` away.",
            partition=partition,
        )

    def event_rows(self, event: str, partition: int, first: int, last: int) -> str:
        """The query that gives the events of one type of some commits, with the columns that the event's view has."""
        tables = self.tables()
        fields = [
            f"{quoted(event + '.' + field['name'])} AS {quoted(field['name'])}"
            for field in tables.records[event]["fields"]
        ]
        envelope = [f"events.{name} AS {quoted(alias)}" for name, alias in EVENT_ENVELOPE]
        return (
            f"SELECT {', '.join([*fields, *envelope])} FROM {tables.events} AS events "
            f"WHERE events.type = {literal(event)} AND events.partition = {partition} "
            f"AND events.number BETWEEN {first} AND {last}"
        )


class MirrorFacts:
    """The events of one partition that a projection takes, in the order of the log, as `CommitCodec.read_facts` gives
    them."""

    def __init__(
        self, store: Store, tables: Callable[[], MirrorTables], events: Sequence[type[Event]], partition: int
    ) -> None:
        self._store, self._tables, self._partition = store, tables, partition
        self._readers = [_Events(event, tables().records[wire_name(event)]) for event in events]
        self._chunk: Iterator[Fact] = iter(())
        self._ahead: Fact | None = None
        self._next = 0
        """The commit that is read next: the chunk goes on with it."""
        self._chunk_last = 0

    def read(self, first: int, last: int) -> list[Fact]:
        """Those of the commits from one number to another. Quick where ranges follow each other."""
        if first != self._next:
            self._ahead, self._chunk_last = None, first - 1
        found: list[Fact] = []
        while True:
            if self._ahead is not None:
                if self._ahead.number > last:
                    break
                found.append(self._ahead)
            self._ahead = next(self._chunk, None) if self._chunk_last >= first else None
            if self._ahead is None:
                if self._chunk_last >= last:
                    break
                self._fetch(max(first, self._chunk_last + 1), last)
        self._next = last + 1
        return found

    def _fetch(self, first: int, last: int) -> None:
        self._chunk_last = max(last, first + CHUNK_COMMITS - 1)
        parts = [reader.read(self._answer(reader, first, self._chunk_last)) for reader in self._readers]
        self._chunk = parts[0] if len(parts) == 1 else merge(*parts, key=lambda fact: (fact.number, fact.version))

    def _answer(self, reader: _Events, first: int, last: int) -> bytes:
        sql = (
            f"SELECT {reader.columns} FROM {self._tables().events} WHERE partition = {self._partition} "
            f"AND type = {literal(reader.name)} AND number BETWEEN {first} AND {last} ORDER BY number, version"
        )
        return self._store.answer(sql, "Avro", _SETTINGS)


class _Events:
    """Reads the rows of one type of event. ClickHouse writes a column as Avro just as the commit had it; but for an
    enum, whose symbol it writes."""

    def __init__(self, event: type[Event], record: Json) -> None:
        self._event = event
        self.name = wire_name(event)
        names = [field["name"] for field in record["fields"]]
        columns = [quoted(f"{self.name}.{name}") for name in names]
        self.columns = ", ".join([*(quoted(name) for name, _ in _ENVELOPE), *columns])
        self._places = {f"f{nth}": name for nth, name in enumerate(names)}
        fields = [
            *({"name": name, "type": kind} for name, kind in _ENVELOPE),
            *(
                {"name": f"f{nth}", "type": as_written(field["type"], f"n{nth}")}
                for nth, field in enumerate(record["fields"])
            ),
        ]
        row = {"type": "record", "name": "Row", "fields": fields}
        self._schema, self._shape = parse_schema(row), _shape(row)
        self._convert = record_of(event).reader(record)

    def read(self, answer: bytes) -> Iterator[Fact]:
        """The facts of an answer. Raises StoreUnavailable for one that is not written as these lines read it."""
        said, _ = read_map(answer, 4)
        if _shape(json.loads(said["avro.schema"])) != self._shape:
            raise StoreUnavailable(
                f"This ClickHouse does not write {self.name} in Avro as the commits have it.",
                cure="Give the rebuild up with `--cancel`, and repeat it without `--from mirror`.",
            )
        stream, schema, places = io.BytesIO(answer), self._schema, self._places
        for count, at in _blocks(answer):
            stream.seek(at)
            for _ in range(count):
                row: Any = schemaless_reader(stream, schema, None)
                yield Fact(
                    row["number"],
                    row["aggregate_id"],
                    row["version"],
                    write_bytes(row["aggregate_id"].encode()),
                    write_long(row["at"]),
                    row["actor"],
                    row["correlation_id"],
                    self._made({name: row[place] for place, name in places.items()}),
                )

    def _made(self, fields: dict[str, Any]) -> Any:
        try:
            return msgspec.convert(fields if self._convert is None else self._convert(fields), self._event)
        except Unknown as error:
            raise PartitionRefused(
                f"The mirror has {self.name} with {error}.", cure="Deploy the code that declares it."
            ) from error


def as_written(avro: Json, namespace: str) -> Json:
    """How ClickHouse writes what was read with this Avro type. Its records need names of their own: a namespace."""
    if isinstance(avro, list):
        return [part if part == "null" else as_written(part, namespace) for part in avro]
    if not isinstance(avro, dict):
        return avro
    if avro["type"] == "enum":
        return "string"
    if avro["type"] == "record":
        fields = [
            {"name": field["name"], "type": as_written(field["type"], f"{namespace}_{nth}")}
            for nth, field in enumerate(avro["fields"])
        ]
        return {"type": "record", "name": f"R{namespace}", "fields": fields}
    return {
        key: as_written(value, f"{namespace}_i") if key in ("items", "values") else value
        for key, value in avro.items()
        if key != "default"
    }


def _shape(avro: Json) -> Json:
    """What of a schema says how its values are written: neither names nor logical types do."""
    if isinstance(avro, list):
        return [_shape(part) for part in avro]
    if not isinstance(avro, dict):
        return "string" if avro == "bytes" else avro
    if avro["type"] == "record":
        return ["record", *(_shape(field["type"]) for field in avro["fields"])]
    if avro["type"] in ("array", "map"):
        return [avro["type"], _shape(avro["items" if avro["type"] == "array" else "values"])]
    return _shape(avro["type"])


def _blocks(answer: bytes) -> Iterator[tuple[int, int]]:
    """By block of an Avro container (Avro 1.11, "Object Container Files"), how many rows it has, and where they are."""
    _, at = read_map(answer, 4)
    at += 16
    while at < len(answer):
        count, at = read_long(answer, at)
        size, at = read_long(answer, at)
        yield count, at
        at += size + 16
