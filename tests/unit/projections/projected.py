"""A log of one aggregate, and the tables of rows and folds over it, on the real engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from magnetar.projections import Fold, Rows
from magnetar.projections.columns import quoted
from magnetar.projections.keyed_fold_table import fold_table_of
from magnetar.projections.projected_table import ProjectedTable, Source
from magnetar.projections.quarantine import KEYS_MAX
from magnetar.projections.range_loop import RangeLoop
from magnetar.projections.rows_table import RowsTable
from magnetar.projections.store import Store
from magnetar.schemas import Command, Event, MessageId, Meta, uuid7
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import CommitCodec, write_source
from magnetar.schemas.commit import Source as CommandSource

from tests.unit.projections.test_mirror import OWNER, FakeFeed, Stored


class Touch(Command):
    pass


class Put(Event):
    amount: int


class Taken(Event):
    amount: int


class Emptied(Event):
    pass


class Ignored(Event):
    text: str


EVENTS: list[type[Event]] = [Put, Taken, Emptied, Ignored]


class Large(Rows):
    """What was put in or taken, where it was much."""

    amount: int
    by: str | None

    @classmethod
    def project(cls, event: Put | Taken, meta: Meta) -> Iterator[Self]:
        for _ in range(event.amount // 100):
            yield cls(event.amount, meta.actor)


class Sorted(Large):
    """The same, stored by what many rows have in common."""

    order_by = ("by", "amount")


class Balance(Fold):
    """What is in each box."""

    amount: int = 0
    history: tuple[int, ...] = ()

    def apply(self, event: Put | Taken | Emptied) -> Self | None:
        match event:
            case Put(amount):
                return self.replace(amount=self.amount + amount, history=(*self.history, amount))
            case Taken(amount):
                return self.replace(amount=self.amount - amount, history=(*self.history, -amount))
            case Emptied():
                return None


class Boxes:
    """One partition of a log, written by hand, and a projection's table in a database of its own."""

    events: ClassVar[list[type[Event]]] = EVENTS

    def __init__(self, store: Store, folder: Path, projection: type[Any], *, partitions: int = 4) -> None:
        self.context = f"b{uuid.uuid4().hex[:10]}"
        self.store = store
        self.folder = folder
        self.projection = projection
        self.partitions = partitions
        self.keys_max = KEYS_MAX
        """How many keys may be quarantined."""
        self.schema = AggregateSchema(self.context, "Box", commands=[Touch], events=self.events, rejections=[])
        self.codec = CommitCodec(self.schema)
        self.messages = [Stored(MessageId(0), self.codec.claim(OWNER, 0, "w"), 1)]
        self.versions: dict[str, int] = {}
        store.command(f"CREATE DATABASE {quoted(self.context)}")
        self.table = self.open()
        self.table.prepare()
        self.table.show()

    def open(self, *, failpoint: Callable[[str], None] | None = None) -> ProjectedTable:
        """The table as another projector would open it."""
        kind = fold_table_of(self.projection) if issubclass(self.projection, Fold) else RowsTable
        return kind(
            self.store,
            self.projection,
            Source(self.schema, self.partitions, lambda _: self.schema.commit_json, self.keys_max),
            generation=1,
            folder=self.folder,
            failpoint=failpoint,
        )

    def commit(self, id: str, *events: Event, actor: str | None = None, at_us: int = 1_700_000_000_000_000) -> int:
        """The next commit of the log; returns its number."""
        number, version = len(self.messages), self.versions.get(id, 0)
        envelope = CommandEnvelope(id, uuid7(1, number), at_us + number, actor=actor)
        source = write_source(CommandSource(MessageId(number, 0, 0), 1_700_000_000_123, str(uuid.UUID(int=7))))
        tail = self.codec.accepted(events) if events else self.codec.nothing()
        ids = encode_ids_to_time(envelope)
        payload = self.codec.encode(number, OWNER, envelope, version, ids, source, tail)
        self.messages.append(Stored(MessageId(number), payload, 1))
        self.versions[id] = version + len(events)
        return number

    def loop(self, table: ProjectedTable | None = None, *, partition: int = 0, **options: Any) -> RangeLoop:
        """A new owner of the partition."""
        feed = lambda after: FakeFeed(self.messages, after)  # noqa: E731 - as the loop wants it
        return RangeLoop(table or self.open(), partition, feed, nonce=uuid.uuid4().hex, **options)

    def run(self, table: ProjectedTable | None = None, **options: Any) -> None:
        """All that there is, by a new owner."""
        loop = self.loop(table, **options)
        while loop.step():
            pass

    def rows(self, select: str, rest: str = "ORDER BY _number, _id") -> Sequence[tuple[Any, ...]]:
        """Of the view."""
        view = f"{quoted(self.context)}.{quoted(self.table.view)}"
        return [tuple(row) for row in self.store.query(f"SELECT {select} FROM {view} {rest}")]

    def expected(self) -> dict[str, Balance]:
        """What the log comes to for `Balance`, folded without any table."""
        states: dict[str, Balance] = {}
        for message in self.messages[1:]:
            commit = self.codec.decode(message.payload)
            for event in (each for each in commit.events if not isinstance(each, Ignored)):
                after = states.get(commit.aggregate_id, Balance()).apply(event)
                states.pop(commit.aggregate_id, None)
                if after is not None:
                    states[commit.aggregate_id] = after
        return states

    def balances(self) -> dict[str, Balance]:
        """The same, from the view."""
        return {id: Balance(amount, tuple(history)) for id, amount, history in self.rows("_id, amount, history")}
