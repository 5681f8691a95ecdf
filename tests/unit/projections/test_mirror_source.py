"""The mirror as a source: its events are those of the log, and what does not fit the log is not taken."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from magnetar.projections import Fold, Sql, Window, incremental_table, mirror_source
from magnetar.projections.columns import quoted
from magnetar.projections.declarations import view_name
from magnetar.projections.fold_table import FoldTable
from magnetar.projections.incremental_table import IncrementalTable
from magnetar.projections.keyed_fold_table import fold_table_of
from magnetar.projections.leased_table import LeasedTable
from magnetar.projections.mirror import Mirror
from magnetar.projections.mirror_source import MirrorFacts, MirrorSource
from magnetar.projections.projected_table import Source
from magnetar.projections.range_loop import HANDED_OVER, RangeLoop
from magnetar.projections.rows_table import RowsTable
from magnetar.projections.store import Store
from magnetar.schemas import Event, Immutable, MessageId, Meta, PartitionRefused, StoreUnavailable, uuid7
from magnetar.schemas.command_message import CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import CommitCodec, Fact, Parked, write_source
from magnetar.schemas.commit import Source as CommandSource
from magnetar.schemas.derive import record_of

from tests.unit.projections.projected import Balance, Emptied, Ignored, Large, Put, Taken
from tests.unit.projections.test_mirror import OWNER, Context, Crash, Denied, FakeFeed, crashing
from tests.unit.projections.test_types import ROUNDS, Everything, Plain, of_round
from tests.unit.schemas.classes import EVENTS, Typed

CORRELATION = str(uuid.UUID(int=2**127 + 5))


class Log:
    """A log of one partition, written by hand under schemas that grow, its mirror, and tables over both."""

    def __init__(self, store: Store, folder: Path, *events: type[Event]) -> None:
        self.context = Context(store, folder, events)
        self.store, self.folder = store, folder
        self._number = 0
        self._versions: dict[str, int] = {}

    @property
    def codec(self) -> CommitCodec:
        """Of the newest schema."""
        return CommitCodec(self.context.schemas[-1])

    def grow(self, *events: type[Event]) -> None:
        """Other code writes from now on."""
        self.context.schemas.append(self.context.schema(list(events)))

    def commit(self, id: str, *events: Event, tail: bytes | None = None, **more: Any) -> None:
        """The next commit."""
        self._number += 1
        version = self._versions.get(id, 0)
        self._versions[id] = version + len(events)
        at = 1_700_000_000_000_000 + self._number
        envelope = CommandEnvelope(id, uuid7(1, self._number), at, **more)
        source = write_source(CommandSource(MessageId(self._number, 0, 0), 1_700_000_000_123, str(uuid.UUID(int=7))))
        tail = tail or (self.codec.accepted(events) if events else self.codec.nothing())
        ids = encode_ids_to_time(envelope)
        self.context._store(self.codec.encode(self._number, OWNER, envelope, version, ids, source, tail))

    def mirror(self, **options: Any) -> Mirror:
        """Bring all into the mirror; it then has written down that it has."""
        self.context.mirror = mirror = self.context.open()
        loop = self.context.loop(**options)
        while loop.step():
            pass
        return mirror

    def source(self) -> MirrorSource:
        """The mirror as a source."""
        return MirrorSource(self.store, lambda: self.context.mirror.tables)

    def facts(self, events: Sequence[type[Event]], ranges: Sequence[tuple[int, int]]) -> list[list[Fact]]:
        """By range, what the mirror gives."""
        reader = MirrorFacts(self.store, lambda: self.context.mirror.tables, events, 0)
        return [reader.read(*each) for each in ranges]

    def logged(self, events: Sequence[type[Event]], first: int, last: int) -> list[Fact]:
        """What the log gives of commits."""
        found: list[Fact] = []
        for message in self.context.messages:
            codec = self.codec.for_schema(self.context.schemas[message.schema - 1].commit_json)
            found += codec.read_facts(message.payload, frozenset(events))
        return [fact for fact in found if first <= fact.number <= last]

    def table(self, projection: type[Any], *, generation: int, from_mirror: bool, failpoint: Any = None) -> LeasedTable:
        """A generation of a projection's table, as a projector opens it."""
        schemas = self.context.schemas
        source = Source(
            schemas[-1],
            4,
            lambda number: schemas[number - 1].commit_json,
            mirror=self.source() if from_mirror else None,
        )
        kind: Any = RowsTable
        if issubclass(projection, Fold):
            kind = fold_table_of(projection)
        elif issubclass(projection, Sql):
            kind = IncrementalTable
        table: LeasedTable = kind(
            self.store, projection, source, generation=generation, folder=self.folder, failpoint=failpoint
        )
        table.prepare()
        return table

    def loop(self, table: LeasedTable, **options: Any) -> RangeLoop:
        """A new owner of the table."""
        messages = self.context.messages
        return RangeLoop(
            table,
            0,
            lambda after: FakeFeed(messages, after),
            nonce=uuid.uuid4().hex,
            open_mirror=lambda: table.open_mirror(0),
            **options,
        )

    def fill(self, table: LeasedTable, **options: Any) -> RangeLoop:
        """All that there is."""
        loop = self.loop(table, **options)
        while loop.step():
            pass
        return loop

    def rows(self, projection: type[Any], generation: int) -> list[Any]:
        """Of a generation, as its view shows them, with the columns that are hidden in it."""
        view = quoted(view_name(projection))
        self.table(projection, generation=generation, from_mirror=False).show()
        return sorted(map(repr, self.context.rows(f"SELECT * FROM DB.{view}")))


@pytest.fixture
def log(store: Store, tmp_path: Path) -> Log:
    return Log(store, tmp_path, Put, Taken, Emptied, Ignored)


# --- its events are those of the log ----------------------------------------------------------------------------------


def test_every_type_comes_out_of_the_mirror_as_out_of_the_log(store: Store, tmp_path: Path) -> None:
    log = Log(store, tmp_path, Everything, Plain)
    for number in range(ROUNDS):
        log.commit("ä", Plain(), Everything(**of_round(number, 0)), Plain(), actor="me", correlation_id=CORRELATION)
        log.commit("b" * number, Everything(**of_round(number, 0)))
        log.commit("c", tail=log.codec.rejected(Denied("no")))
        log.commit("c", tail=log.codec.parked(Parked.of("undecodable", "broken", b"junk")))
        log.commit("c")
    log.mirror()
    last = 5 * ROUNDS
    for events in ([Everything], [Plain], [Plain, Everything]):
        (found,) = log.facts(events, [(1, last)])
        assert found == log.logged(events, 1, last)
        assert len(found) == ROUNDS * {1: 2, 2: 4}[len(events)]
        parts = log.facts(events, [(1, 1), (2, 7), (8, 8), (9, last), (2, 3)])
        assert parts == [log.logged(events, *each) for each in [(1, 1), (2, 7), (8, 8), (9, last), (2, 3)]]


def test_a_commit_without_events_gives_none(log: Log) -> None:
    for _ in range(3):
        log.commit("a", tail=log.codec.rejected(Denied("no")))
    log.mirror()
    assert log.facts([Put], [(1, 3)]) == [[]]
    assert log.source().verified(0).last == 3


def test_an_event_of_before_a_field_has_the_fields_default(store: Store, tmp_path: Path) -> None:
    class OldSold(Event, wire_name="Sold"):
        sku: str

    class Sold(Event):
        sku: str
        pieces: int = 7
        note: str | None = None
        price: Annotated[int, "in cents"] = 100

    log = Log(store, tmp_path, OldSold, Plain)
    log.commit("a", OldSold("tea"), Plain())
    log.mirror()
    log.grow(Sold, Plain)
    log.commit("a", Sold("cup", 1, "now", 2))
    log.mirror()
    (found,) = log.facts([Sold], [(1, 2)])
    assert found == log.logged([Sold], 1, 2)
    assert [fact.event for fact in found] == [Sold("tea"), Sold("cup", 1, "now", 2)]


@given(EVENTS, st.data())
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_generated_events_come_out_of_the_mirror_as_out_of_the_log(
    store: Store, tmp_path: Path, typed: Typed, data: st.DataObject
) -> None:
    log = Log(store, tmp_path, typed.annotation)
    for value in data.draw(st.lists(typed.values, min_size=1, max_size=3)):
        log.commit("a", value)
    log.mirror()
    (found,) = log.facts([typed.annotation], [(1, 3)])
    assert found == log.logged([typed.annotation], 1, 3)
    store.command(f"DROP DATABASE {quoted(log.context.name)}")


# --- tables of each kind ----------------------------------------------------------------------------------------------


class Sums(Fold):
    """Of all boxes, by what was put in."""

    by = ("amount",)
    merges: ClassVar = {"times": sum}
    amount: int = 0
    times: int = 0

    def apply(self, event: Put) -> Self:
        return self.replace(times=self.times + 1)


class ByMinute(Fold):
    """Of each box."""

    window = Window(timedelta(minutes=1))
    amount: int = 0

    def apply(self, event: Put | Taken) -> Self:
        return self.replace(amount=self.amount + event.amount)


class Amounts(Sql):
    """Kept incrementally."""

    incremental = True
    select = "SELECT _id AS id, sum(amount) AS amount, count() AS times, max(_number) AS last FROM Put GROUP BY id"
    id: str
    amount: int
    times: int
    last: int


KINDS = [Large, Balance, Sums, ByMinute, Amounts]


def write(log: Log, commits: int) -> None:
    """Commits of several aggregates, of all outcomes."""
    for nth in range(commits):
        id = "abc"[nth % 3]
        match nth % 5:
            case 0:
                log.commit(id, Put(100 + nth % 7), Ignored("x"), Put(nth % 3), actor="me")
            case 1:
                log.commit(id, tail=log.codec.rejected(Denied("no")))
            case 2:
                log.commit(id, Taken(200 + nth))
            case 3:
                log.commit(id, *([Emptied()] if nth % 2 else [Put(1), Taken(1)]))
            case _:
                log.commit(id)


@pytest.mark.parametrize("projection", KINDS)
@pytest.mark.parametrize("failpoint", ["after_stop", "after_pending", "after_insert", HANDED_OVER])
def test_a_table_is_the_same_from_the_mirror_and_from_the_log_whoever_is_killed(
    log: Log, projection: type[Any], failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowsTable, "range_commits_max", 9)
    monkeypatch.setattr(FoldTable, "range_commits_max", 9)
    monkeypatch.setattr(incremental_table, "MIRRORED_COMMITS_MAX", 9)
    monkeypatch.setattr(mirror_source, "CHUNK_COMMITS", 16)
    write(log, 25)
    log.mirror(range_commits_max=10)
    write(log, 8)  # the mirror has them not
    log.fill(log.table(projection, generation=1, from_mirror=False))
    for _ in range(5):
        with contextlib.suppress(Crash):
            log.fill(log.table(projection, generation=2, from_mirror=True), failpoint=crashing(failpoint))
    loop = log.fill(log.table(projection, generation=2, from_mirror=True))
    assert loop.number == 33
    assert log.rows(projection, 2) == log.rows(projection, 1)
    write(log, 5)  # it goes on, and needs no mirror
    log.fill(log.table(projection, generation=1, from_mirror=False))
    log.fill(log.table(projection, generation=2, from_mirror=False))
    assert log.rows(projection, 2) == log.rows(projection, 1)


def test_a_table_that_has_all_of_it_from_the_mirror_needs_no_mirror_any_more(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowsTable, "range_commits_max", 9)
    write(log, 10)
    log.mirror()
    log.fill(log.table(Large, generation=2, from_mirror=True))
    write(log, 5)
    assert log.fill(log.table(Large, generation=2, from_mirror=False)).number == 15
    log.fill(log.table(Large, generation=1, from_mirror=False))
    assert log.rows(Large, 2) == log.rows(Large, 1)


# --- what does not fit is not taken -----------------------------------------------------------------------------------

LOST = {
    "lacks commit 4, on partition 0": "ALTER TABLE DB.account__commits__g1 DELETE WHERE number = 4",
    "lacks commit 25, of 25": "ALTER TABLE DB.account__commits__g1 DELETE WHERE number = 25",
    "has commit 3 twice": "INSERT INTO DB.account__commits__g1 SELECT * FROM DB.account__commits__g1 WHERE number = 3",
    "has other events of commit 6": "ALTER TABLE DB.account__events__g1 DELETE WHERE number = 6 AND type = 'Put'",
    "has other events of commit 1 ": "INSERT INTO DB.account__events__g1 SELECT * FROM DB.account__events__g1 "
    "WHERE number = 1 LIMIT 1",
    "has no column Put.amount": "ALTER TABLE DB.account__events__g1 DROP COLUMN `Put.amount`",
}


@pytest.mark.parametrize("said", LOST)
def test_a_mirror_that_does_not_fit_its_numbers_is_named_with_the_commit(log: Log, said: str) -> None:
    write(log, 25)
    mirror = log.mirror()
    statement = LOST[said].replace("DB", quoted(log.context.name))
    log.store.command(f"{statement} SETTINGS mutations_sync = 2" if "ALTER" in statement else statement)
    with pytest.raises(StoreUnavailable, match=said) as caught:
        log.source().verified(0)
    assert "fills a new mirror from the topics" in caught.value.cure
    table = log.table(Large, generation=2, from_mirror=True)
    with pytest.raises(StoreUnavailable, match="nothing can be rebuilt from it"):
        log.loop(table)
    assert table.last_numbers() == {}
    assert mirror.last_numbers()


def test_commits_that_no_range_of_the_mirror_says_are_there_are_not_taken_from_it(log: Log) -> None:
    write(log, 25)
    log.context.mirror = log.context.open(failpoint=crashing("between_tables"))
    loop = log.context.loop(range_commits_max=10)
    with pytest.raises(Crash):
        loop.step()
    assert log.source().verified(0).last == 0  # the commits of the first range are there, and its events are not
    log.mirror(range_commits_max=10)
    assert log.source().verified(0).last == 25


def test_a_log_that_lacks_what_the_mirror_has_is_not_gone_on_with(log: Log) -> None:
    write(log, 25)
    log.mirror(range_commits_max=10)
    del log.context.messages[24:]
    with pytest.raises(
        StoreUnavailable, match="has commit 25 of partition 0, and the log gives none behind 23"
    ) as caught:
        log.fill(log.table(Large, generation=2, from_mirror=True))
    assert "Restore both from one copy" in caught.value.cure


def test_a_column_that_was_given_another_type_by_hand_is_not_read(log: Log) -> None:
    log.commit("a", Put(1))
    mirror = log.mirror()
    log.store.command(f"ALTER TABLE {mirror.tables.events} MODIFY COLUMN `Put.amount` Nullable(Int64)")
    with pytest.raises(StoreUnavailable, match="does not write Put in Avro as the commits have it"):
        log.facts([Put], [(1, 1)])


def test_a_log_that_was_trimmed_to_what_the_mirror_took_in_last_is_enough(log: Log) -> None:
    write(log, 25)
    log.mirror(range_commits_max=10)
    log.fill(log.table(Balance, generation=1, from_mirror=False))
    del log.context.messages[:20]
    log.fill(log.table(Balance, generation=2, from_mirror=True))
    assert log.rows(Balance, 2) == log.rows(Balance, 1)


def test_a_table_that_has_come_further_than_the_mirror_waits_for_it(log: Log) -> None:
    write(log, 25)
    log.mirror(range_commits_max=10)
    with pytest.raises(Crash):
        log.fill(log.table(Large, generation=2, from_mirror=True), failpoint=crashing("after_pending"))
    for of in ("pending", "progress"):
        log.store.command(
            f"DELETE FROM magnetar.{of} WHERE `projection` = 'mirror' AND aggregate LIKE '{log.context.name}/%'"
        )
    with pytest.raises(StoreUnavailable, match="Commits 1 to 25 of partition 0 were being taken from the mirror"):
        log.loop(log.table(Large, generation=2, from_mirror=True))


def test_an_event_that_the_projection_raises_on_stops_a_partition_that_is_filled_from_the_mirror(log: Log) -> None:
    class Raising(Large):
        @classmethod
        def project(cls, event: Put | Taken, meta: Meta) -> Iterator[Self]:
            raise ValueError(event.amount, meta)

    log.commit("a", Put(1))
    log.mirror()
    with pytest.raises(PartitionRefused, match="Raising raised ValueError on Put") as caught:
        log.fill(log.table(Raising, generation=1, from_mirror=True))
    assert "no key is kept in quarantine" in caught.value.cure


class Inner(Immutable):
    ratio: float = float("inf")


class Outer(Event):
    plain: int = 1
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()


def test_a_default_that_only_python_can_say_is_found_within_an_event() -> None:
    assert record_of(Outer).only_in_python() == "maybe.ratio"
    assert record_of(Everything).only_in_python() is None
