"""What the tables of rows and folds have in common: how a range of commits gets into them, decoded in Python."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from magnetar.schemas import PartitionRefused, StoreUnavailable, wire_name
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.commit import CommitCodec, Fact
from magnetar.schemas.derivation import Json
from magnetar.schemas.framing import write_long

from .altered import refuse_altered
from .columns import column_type, comment, literal, quoted, structure
from .compression import compressed
from .container import container
from .contracts import codec_of, contract_of
from .declarations import view_name
from .decoding import Decoder
from .fingerprint import fingerprint_of
from .leased_table import ALL, Scope, Table
from .mirror_source import MirrorFacts, MirrorRanges, MirrorSource
from .progress import FINGERPRINT, fingerprinted
from .quarantine import KEYS_MAX, Held, Holding
from .quarantining_table import Made, QuarantiningTable
from .range_loop import Lease, Mirrored, Range
from .sql_views import said_of
from .store import Store
from .tables import table_settings
from .values import definition

ENVELOPE: Final = {
    "_id": "String COMMENT 'of the aggregate'",
    "_version": "Int64 COMMENT 'of the aggregate, after the event'",
    "_at": "DateTime64(6, 'UTC') COMMENT 'the time of the command'",
    "_number": "UInt64 COMMENT 'of the commit within its partition, from 1'",
    "_partition": "UInt16 COMMENT 'of the event topic'",
    "_aggregate": "LowCardinality(String)",
}
_BLOCK: Final[list[Json]] = [
    {"name": "_id", "type": "string"},
    {"name": "_version", "type": "long"},
    {"name": "_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "_number", "type": "long"},
]
"""What stands before a row's own fields in the blocks that are inserted."""


class Source(NamedTuple):
    """What a table needs of the aggregate whose events it takes."""

    schema: AggregateSchema
    partitions: int
    schema_text: Callable[[int], str]
    quarantine_keys_max: int = KEYS_MAX
    """So many keys with an event that the projection raises on are kept back; one more stops the partition."""
    decoder: Decoder | None = None
    """Who decodes the commits for a table that ClickHouse fills from them."""
    mirror: MirrorSource | None = None
    """What the table is filled from at first; None for the log."""
    reader: str = ""
    """The context whose table it is, if the aggregate is of another one."""
    partitions_together: int = 0
    """Of all aggregates whose events the table takes, if there are several."""

    @property
    def context(self) -> str:
        """Whose table it is."""
        return self.reader or self.schema.context

    @property
    def aggregate(self) -> str:
        """What the aggregate is called there: one of another context goes with its context."""
        own = self.schema.aggregate
        return own if self.context == self.schema.context else f"{self.schema.context}/{own}"


def refuse_outgrown(store: Store, context: str, table: Table, view: str, fingerprint: str) -> None:
    """Raise StoreUnavailable if a generation is there, and was filled under another declaration."""
    found = store.query(
        f"SELECT {FINGERPRINT} FROM system.tables WHERE database = {{database:String}} AND name = {{name:String}}",
        {"database": context, "name": f"{view}__g{table.generation}"},
    )
    if any(theirs != fingerprint for (theirs,) in found):
        raise StoreUnavailable(
            f"{table.projection} has changed: generation {table.generation} was filled by other code, and stays as it "
            "is.",
            cure=f"`magnetar rebuild` with the pipeline's module and {table.target} fills a new table.",
            is_outgrown=True,
        )


class ProjectedTable(QuarantiningTable):
    """One generation of the table of a projection that is written in Python."""

    def __init__(
        self,
        store: Store,
        projection: type[Any],
        source: Source,
        *,
        generation: int,
        folder: Path,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        table = Table(wire_name(projection), source.aggregate, generation)
        super().__init__(store, source.context, table, folder=folder, failpoint=failpoint)
        self.projection: type[Any] = projection
        self._contract = contract_of(projection)
        self._source = source
        self._events = frozenset(self._contract.events)
        self._codec = codec_of(projection)
        self._codecs: dict[int, CommitCodec] = {}
        self._last: dict[int, int] = {}
        """By partition, the number of the last commit of which something is in the table."""
        self._counted: dict[int, int] = {}
        self._has: dict[int, int] = {}
        """By partition, how much is in the table, of the pending range too."""
        self.quarantine_keys_max = source.quarantine_keys_max
        self.database = quoted(source.context)
        self.view = view_name(projection)
        self.name = f"{self.database}.{quoted(f'{self.view}__g{generation}')}"

    # --- what it is ---------------------------------------------------------------------------------------------------

    range_commits_max: ClassVar[int] = 10_000
    """A range is in memory as Python objects, half a kilobyte for each event and more, and keeps the others waiting."""
    unit: ClassVar[str]
    """What is counted, in the plural."""
    counting: ClassVar[str]
    """The expression that counts it where a condition holds."""
    engine: ClassVar[str]
    order: ClassVar[str]
    hidden: ClassVar[dict[str, str]] = {}
    """The columns that the view does not show."""
    block_fields: ClassVar[list[Json]] = []
    """What stands between the envelope and the row's own fields in a block."""

    def definition(self) -> str:
        """The statement that creates it. Repeatable."""
        codecs = dict(self._contract.storage.codecs)
        lines = ",\n  ".join(
            f"{quoted(name)} {compressed(kind, codecs.get(name))}" for name, kind in self.columns().items()
        )
        return (
            f"CREATE TABLE IF NOT EXISTS {self.name} (\n  {lines}\n) ENGINE = {self.engine} "
            f"PARTITION BY (_aggregate, _partition) ORDER BY ({self.sorting}) {self.lifetime}"
            f"SETTINGS {self.settings} "
            f"COMMENT {literal(fingerprinted(said_of(self.projection), self.fingerprint))}"
        )

    def columns(self) -> dict[str, str]:
        """The definitions of its columns, by name."""
        fields = {field["name"]: definition(field) for field in self._contract.record["fields"]}
        return {**fields, **ENVELOPE, **self.hidden}

    @property
    def sorting(self) -> str:
        """The columns of the sorting key."""
        return self.order

    @property
    def lifetime(self) -> str:
        """The clause that says how long rows are kept; empty for ever."""
        return ""

    @property
    def settings(self) -> str:
        """The table's settings."""
        return table_settings(self._source.partitions_together or self._source.partitions)

    @property
    def fingerprint(self) -> str:
        """What the declaration is."""
        return fingerprint_of(self.projection)

    def prepare(self) -> None:
        """Create the table. Raises StoreUnavailable if it is there, and was filled under another declaration or altered
        by hand."""
        self._store.command(self.definition())
        refuse_outgrown(self._store, self._source.context, self.table, self.view, self.fingerprint)
        refuse_altered(self._store, self.name, self.columns(), target=self.table.target)

    def show(self, _: Callable[[str], None] = lambda _: None, /) -> None:
        """Let the view show this generation."""
        fields = [
            (field["name"], f"{column_type(field['type'])} COMMENT {literal(comment(field))}")
            for field in self._contract.record["fields"]
        ]
        columns = [*fields, *self.shown.items()]
        self._store.command(
            f"CREATE OR REPLACE VIEW {self.database}.{quoted(self.view)} "
            f"({', '.join(f'{quoted(name)} {kind}' for name, kind in columns)}) AS "
            f"SELECT {', '.join(quoted(name) for name, _ in columns)} FROM {self.read_from} "
            f"COMMENT {literal(said_of(self.projection))}"
        )

    @property
    def shown(self) -> dict[str, str]:
        """The columns of the view besides the fields."""
        return ENVELOPE

    @property
    def read_from(self) -> str:
        """What the view reads."""
        return self.name

    def drop(self) -> None:
        """Remove the table."""
        self._store.command(f"DROP TABLE IF EXISTS {self.name} SYNC")

    # --- what comes in ------------------------------------------------------------------------------------------------

    def check(self, partition: int, first: int, last: int, counted: int, _: Scope = ALL, /) -> None:
        """Find out how far the table is, and count: whoever wrote to it before is stopped."""
        number, below, all_of_it = self._standing(partition, first)
        has_held = self._quarantine.has_any(partition)
        held = self._quarantine.spans(partition) if has_held else {}
        is_whole = self.is_whole(counted, below, all_of_it, has_range=number >= first)
        if not is_whole and below >= counted and self.versions(partition, held):
            is_whole, counted = True, below  # whoever released what was held was stopped before it was written down
        if not is_whole or number > max(first - 1, last):
            raise StoreUnavailable(
                f"The table of {self.projection.__qualname__} does not fit the log on partition {partition} of "
                f"{self._name}: it holds {all_of_it} {self.unit} up to commit {number}, of which {below} are older "
                f"than commit {first}, and {counted} were counted before commits {first} to {last} were begun. Rows "
                "were lost, or changed behind the projector's back.",
                cure="Nothing is lost from the log: `magnetar rebuild` with the pipeline's module and "
                f"{self.table.target} fills a new table from it.",
                partition=partition,
            )
        self._last[partition], self._counted[partition], self._has[partition] = number, counted, all_of_it
        self._held[partition] = held
        self._settled[partition] = self._quarantine.settled(partition, first, last) if has_held else frozenset()
        self.forget(partition)

    def _standing(self, partition: int, first: int) -> tuple[int, int, int]:
        """The number of the last commit, how much is older than a commit, and how much there is."""
        older, counting = f"_number < {first}", self.counting_of(partition)
        ((number, below, all_of_it),) = self._store.query(
            f"SELECT max(_number), {counting.format(older)}, {counting.format(1)} FROM {self.name} "
            f"WHERE {self.of(partition)}"
        )
        return number, below, all_of_it

    def counting_of(self, _partition: int, /) -> str:
        """The expression that counts in a partition where a condition holds."""
        return self.counting

    @abstractmethod
    def is_whole(self, counted: int, below: int, all_of_it: int, *, has_range: bool) -> bool:
        """Whether that many rows, or keys, can be what has been inserted. `has_range`: the pending one is there."""

    def counted(self, partition: int, /) -> int:
        """How many rows, or keys, the table has of what is older than the range that is written down."""
        return self._counted[partition]

    def of(self, partition: int) -> str:
        """The condition for the rows of a partition."""
        return f"_aggregate = {literal(self.table.aggregate)} AND _partition = {partition}"

    def forget(self, partition: int) -> None:
        """Trust nothing that was kept in memory of a partition."""

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Decode the events that the projection takes, and insert what it makes of them as one block.

        A range is in the table as a whole or not at all. So if there is anything of it, all of it is there.
        """
        if self._last[partition] < inserted.first:
            codec = self._codec_for(schema)
            facts = [fact for payload in payloads for fact in codec.read_facts(payload, self._events)]
            holding = Holding(self._held[partition], self.room(), self._settled[partition], self.held_as)
            made = self.rows(partition, facts, holding)
            if holding.found:
                self.hold_back(partition, lease, schema, holding, lambda fact: payloads[fact.number - inserted.first])
                self._failpoint("between_tables")
            self._held[partition], self._settled[partition] = holding.known, frozenset()
            self._insert_made(partition, lease, inserted, made)
        self._counted[partition] = self._has[partition]

    def _insert_made(self, partition: int, lease: Lease, inserted: Range, made: Made) -> None:
        if made.rows:
            self.insert_rows(partition, lease, inserted, made.rows)
            self._last[partition] = inserted.last
        self._has[partition] += made.new
        self.keep(partition)

    def open_mirror(self, partition: int, /) -> Mirrored | None:
        """The mirror as the source of a partition's ranges, verified. Raises StoreUnavailable."""
        if (mirror := self._source.mirror) is None:
            return None
        facts = MirrorFacts(self._store, mirror.tables, self._contract.events, partition)
        return MirrorRanges(
            mirror.verified(partition),
            self.range_commits_max,
            lambda lease, inserted: self._insert_mirrored(partition, lease, inserted, facts),
        )

    def _insert_mirrored(self, partition: int, lease: Lease, inserted: Range, facts: MirrorFacts) -> None:
        """As `insert`, from the mirror's rows. Nothing is kept back: that is done with a commit's bytes."""
        if self._last[partition] < inserted.first:
            try:
                made = self.rows(partition, facts.read(inserted.first, inserted.last), Holding({}, 0))
            except PartitionRefused as error:
                raise PartitionRefused(
                    error.what,
                    cure="While a table is filled from the mirror, no key is kept in quarantine. Correct the "
                    "projection; or give the rebuild up with `--cancel`, and repeat it without `--from mirror`.",
                    **error.fields,
                ) from error
            self._insert_made(partition, lease, inserted, made)
        self._counted[partition] = self._has[partition]

    def keep(self, partition: int) -> None:
        """What `rows` returned last is in the table."""

    def facts_of(self, held: Held) -> list[Fact]:
        """The event that is held."""
        facts = self._codec_for(held.schema).read_facts(held.payload, self._events)
        return [fact for fact in facts if self.held_as(fact).order == held.version]

    def recount(self, partition: int, lease: Lease, pending: Range) -> None:
        """Write the range that is written down once more: it was counted before there was more."""
        _, self._counted[partition], all_of_it = self._standing(partition, pending.first)
        self.write_pending(partition, lease, pending)
        self._counted[partition] = self._has[partition] = all_of_it

    def insert_rows(
        self, partition: int, lease: Lease, inserted: Range, rows: Sequence[bytes], *, part: str = "rows"
    ) -> None:
        fields = [*_BLOCK, *self.block_fields, *self._contract.record["fields"]]
        record = {"type": "record", "name": "Block", "fields": fields}
        names = [quoted(field["name"]) for field in fields]
        with self._block(partition, container(json.dumps(record), rows), structure(record)) as block:
            statement = (
                f"INSERT INTO {self.name} ({', '.join(names)}, _partition, _aggregate) "
                f"SELECT {', '.join(names)}, {partition}, {literal(self.table.aggregate)} "
                f"FROM {block.source} WHERE {self._guard(partition, lease)}"
            )
            self._insert_block(partition, inserted, statement, part, block)

    def _codec_for(self, schema: int) -> CommitCodec:
        if schema not in self._codecs:
            self._codecs[schema] = CommitCodec(self._source.schema).for_schema(self._source.schema_text(schema))
        return self._codecs[schema]

    def checked(self, row: Any) -> Any:
        """What the user's code gave, if it is a row of the projection. Raises TypeError."""
        if type(row) is not self.projection:
            raise TypeError(f"it gave a {type(row).__qualname__}, and no {self.projection.__qualname__}")
        return row

    def framed(self, fact: Fact, rest: bytes) -> bytes:
        """A row of a block: where it is from, and the bytes behind that."""
        return b"".join((fact.written_id, write_long(fact.version), fact.written_at, write_long(fact.number), rest))

    def raised(self, fact: Fact, error: Exception) -> PartitionRefused:
        """What becomes of an error of the user's code."""
        name = self.projection.__qualname__
        return PartitionRefused(
            f"{name} raised {type(error).__name__} on {type(fact.event).__qualname__} of "
            f"{self.table.aggregate} {fact.aggregate_id!r}, version {fact.version}: {error}.",
            cure=f"Correct {name}. The partition waits, and nothing of it is lost: {self.quarantine_keys_max} "
            "keys at most are kept in quarantine while the others go on.",
            id=fact.aggregate_id,
            version=fact.version,
            number=fact.number,
        )
