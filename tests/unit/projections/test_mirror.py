"""The mirror on the real engine: what goes in comes out, once, and only under the lease."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from magnetar.pipelines.log import Run
from magnetar.projections.columns import quoted
from magnetar.projections.decoding import Decoder, Decoding
from magnetar.projections.mirror import Mirror
from magnetar.projections.range_loop import Lease, Range, RangeLoop
from magnetar.projections.store import Store
from magnetar.projections.views import views
from magnetar.schemas import (
    Command,
    Event,
    LeaseLost,
    MagnetarError,
    MessageId,
    QueryRefused,
    Rejection,
    StoreUnavailable,
    uuid7,
)
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.command_message import CommandEnvelope, encode_ids_to_time
from magnetar.schemas.commit import CommitCodec, Parked, Source, write_source

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OWNER = b"o" * 16


class Open(Command):
    pass


class Opened(Event):
    """An account was opened."""

    owner: str
    limit: int | None
    since: date
    at: datetime
    rate: float
    flag: bool
    blob: bytes


class Closed(Event):
    pass


class Merged(Event):
    into: str


class Denied(Rejection):
    why: str


class Stored(NamedTuple):
    """A message as the log gives it."""

    id: MessageId
    payload: bytes
    schema: int


class FakeFeed:
    """Reads a list of messages as a partition's log."""

    def __init__(self, messages: Sequence[Stored], after: MessageId | None) -> None:
        self._messages = [m for m in messages if after is None or m.id > after]

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        read = self._messages[:messages_max]
        run = [*takewhile(lambda message: message.schema == read[0].schema, read)]
        self._messages = self._messages[len(run) :]
        return Run([m.payload for m in run], run[0].schema, run[-1].id) if run else None

    def close(self) -> None:
        pass


class Crash(Exception):
    """The process is gone."""


def crashing(name: str) -> Callable[[str], None]:
    def failpoint(at: str) -> None:
        if at == name:
            raise Crash

    return failpoint


class Context:
    """A context of its own, with one aggregate and its log of one partition."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        events: Sequence[type[Event]] = (Opened, Closed),
        *,
        decoding: Decoding = Decoding.TRIED,
    ) -> None:
        self.name = f"c{uuid.uuid4().hex[:10]}"
        self.store = store
        self.folder = folder
        self.decoder = Decoder(store, folder, decoding)
        self.schemas = [self.schema(list(events))]
        self._codec: tuple[AggregateSchema, CommitCodec] | None = None
        self.messages: list[Stored] = []
        self.mirror = self.open()
        self.claim()

    def schema(self, events: list[type[Event]]) -> AggregateSchema:
        return AggregateSchema(self.name, "Account", commands=[Open], events=events, rejections=[Denied])

    def open(
        self, failpoint: Callable[[str], None] | None = None, *, generation: int = 1, decoder: Decoder | None = None
    ) -> Mirror:
        self.store.command(f"CREATE DATABASE IF NOT EXISTS {quoted(self.name)}")
        mirror = Mirror(
            self.store,
            self.schemas[-1],
            partitions=4,
            generation=generation,
            schema_text=lambda number: self.schemas[number - 1].commit_json,
            folder=self.folder,
            failpoint=failpoint,
            decoder=decoder or self.decoder,
        )
        mirror.prepare()
        mirror.show()
        for statement in views([mirror.tables]).values():
            self.store.command(statement)
        return mirror

    def codec(self) -> CommitCodec:
        """Of the newest schema; to make one takes as long as hundreds of commits."""
        if self._codec is None or self._codec[0] is not self.schemas[-1]:
            self._codec = self.schemas[-1], CommitCodec(self.schemas[-1])
        return self._codec[1]

    def claim(self) -> None:
        self._store(self.codec().claim(OWNER, 0, "w"))

    def commit(self, number: int, tail: bytes, *, version: int = 0, id: str = "a") -> None:
        envelope = CommandEnvelope(id, uuid7(1, number), 1_700_000_000_000_001, actor="me", metadata={"k": "v"})
        source = write_source(Source(MessageId(number, 2, 3), 1_700_000_000_123, str(uuid.UUID(int=7))))
        codec = self.codec()
        self._store(codec.encode(number, OWNER, envelope, version, encode_ids_to_time(envelope), source, tail))

    def accepted(self, number: int, *events: Event, version: int = 0) -> None:
        self.commit(number, self.codec().accepted(events), version=version)

    def _store(self, payload: bytes) -> None:
        self.messages.append(Stored(MessageId(len(self.messages) + 1), payload, len(self.schemas)))

    def loop(self, **options: Any) -> RangeLoop:
        nonce = uuid.uuid4().hex
        return RangeLoop(self.mirror, 0, lambda after: FakeFeed(self.messages, after), nonce=nonce, **options)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.store.query(sql.replace("DB", quoted(self.name)))]


@pytest.fixture(params=[Decoding.ENGINE, Decoding.PYTHON])
def context(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Context:
    return Context(store, tmp_path, decoding=request.param)


OPENED = Opened("Ännä's \\ \0x", None, date(1969, 2, 3), AT, -0.5, True, bytes(range(256)))


def test_every_field_of_an_event_comes_out_as_it_went_in(context: Context) -> None:
    context.accepted(1, OPENED, Closed(), Opened("b", 7, date(2100, 1, 1), AT, 1e300, False, b""), version=4)
    assert context.loop().step() == 1
    (first, second) = context.rows(
        "SELECT owner, `limit`, since, at, rate, flag, _id, _version FROM DB.Opened ORDER BY 8"
    )
    assert first == (OPENED.owner, None, OPENED.since, AT.replace(tzinfo=first[3].tzinfo), -0.5, True, "a", 5)
    assert second[:3] == ("b", 7, date(2100, 1, 1))
    assert second[7] == 7
    assert context.rows("SELECT hex(blob) FROM DB.Opened WHERE _version = 5") == [(OPENED.blob.hex().upper(),)]
    assert context.rows("SELECT _version, _actor, _metadata, _number FROM DB.Closed") == [(6, "me", {"k": "v"}, 1)]


def test_every_outcome_has_its_row(context: Context) -> None:
    codec = CommitCodec(context.schemas[0])
    context.accepted(1, Closed())
    context.commit(2, codec.nothing())
    context.commit(3, codec.rejected(Denied('say "no"')))
    context.commit(4, codec.parked(Parked.of("undecodable", "broken", b"junk")))
    assert context.loop().step() == 4
    rows = context.rows(
        "SELECT _number, outcome, events, rejection, rejection_fields, parked_reason, parked_command FROM DB.commits "
        "ORDER BY _number"
    )
    assert rows == [
        (1, "accepted", 1, "", "", "", None),
        (2, "nothing", 0, "", "", "", None),
        (3, "rejected", 0, "Denied", '{"why":"say \\"no\\""}', "", None),
        (4, "parked", 0, "", "", "undecodable", "junk"),
    ]
    assert context.rows("SELECT _number, rejection FROM DB.rejections") == [(3, "Denied")]


def test_only_what_counts_is_mirrored(context: Context) -> None:
    context.accepted(1, Closed())
    context.accepted(1, Closed())
    context.accepted(3, Closed())
    context.accepted(2, Closed())
    context.claim()
    context.accepted(2, Closed())
    loop = context.loop()
    while loop.step():
        pass
    assert context.rows("SELECT _number FROM DB.Closed ORDER BY 1") == [(1,), (2,)]
    assert loop.number == 2


def test_a_new_owner_goes_on_where_the_old_one_was(context: Context) -> None:
    for number in range(1, 8):
        context.accepted(number, Closed(), version=number)
    first = context.loop(range_commits_max=3)
    first.step()
    second = context.loop(range_commits_max=2)
    with pytest.raises(LeaseLost):
        first.step()
    while second.step():
        pass
    assert context.rows("SELECT _number FROM DB.Closed ORDER BY 1") == [(n,) for n in range(1, 8)]
    assert context.rows("SELECT count(), uniqExact(_number) FROM DB.commits") == [(7, 7)]


def test_a_range_that_was_inserted_and_not_recorded_is_not_inserted_twice(context: Context) -> None:
    for number in range(1, 5):
        context.accepted(number, Closed())
    context.loop(range_commits_max=3).step()  # the claim and two commits
    context.accepted(5, Closed())
    for _ in range(3):
        context.loop(range_commits_max=5)
    assert context.rows("SELECT count() FROM DB.Closed") == [(2,)]


def test_without_its_lease_an_insert_writes_nothing(context: Context) -> None:
    context.accepted(1, Closed())
    payloads = [context.messages[-1].payload]
    with pytest.raises(LeaseLost):  # no lease at all
        context.mirror.insert(0, Lease(1, "nobody"), Range(1, 1, None, None), 1, payloads)
    lease = context.mirror.take_lease(0, "one")
    context.mirror.take_lease(0, "two")
    with pytest.raises(LeaseLost):
        context.mirror.insert(0, lease, Range(1, 1, None, None), 1, payloads)
    assert context.rows("SELECT count() FROM DB.commits") == [(0,)]


def test_of_two_leases_of_one_epoch_one_is_the_newest_for_everybody(context: Context) -> None:
    context.accepted(1, Closed())
    payloads = [context.messages[-1].payload]
    lease = context.mirror.take_lease(0, "bbb")
    context.store.command(
        "INSERT INTO magnetar.leases (`projection`, generation, aggregate, partition, epoch, nonce) "
        "VALUES ('mirror', 1, {name:String}, 0, {epoch:UInt64}, 'aaa')",
        {"name": f"{context.name}/Account", "epoch": lease.epoch},
    )
    with pytest.raises(LeaseLost):
        context.mirror.insert(0, Lease(lease.epoch, "aaa"), Range(1, 1, None, None), 1, payloads)
    context.mirror.insert(0, lease, Range(1, 1, None, None), 1, payloads)
    assert context.rows("SELECT count() FROM DB.commits") == [(1,)]


def test_the_leases_of_all_partitions_are_taken_at_once_above_all_before(context: Context) -> None:
    context.accepted(1, Closed())
    context.loop().step()
    earlier = context.mirror.take_lease(0, "one"), context.mirror.take_lease(2, "one")
    taken = context.mirror.take_all(4, "all")
    assert [taken[0].epoch, taken[1], taken[2].epoch] == [earlier[0].epoch + 1, Lease(1, "all"), earlier[1].epoch + 1]
    payloads = [context.messages[-1].payload]
    with pytest.raises(LeaseLost):
        context.mirror.insert(0, earlier[0], Range(2, 2, None, None), 1, payloads)
    context.store.command(f"DELETE FROM magnetar.leases WHERE aggregate = '{context.name}/Account'")
    again = context.mirror.take_all(4, "again")
    assert (again[0].epoch > 1, again[1]) == (True, Lease(1, "again")), "above what was written down under a lease"


def test_when_the_leases_are_lost_the_next_one_is_above_what_was_written_down_under_them(context: Context) -> None:
    for number in range(1, 4):  # each under a lease of its own
        context.accepted(number, Closed())
        context.loop().step()
    context.store.command("TRUNCATE TABLE magnetar.leases")
    for number in range(4, 7):
        context.accepted(number, Closed())
        context.loop().step()
        assert context.mirror.last_numbers() == {0: number}
    assert context.rows("SELECT count() FROM DB.Closed") == [(6,)]


def test_it_is_the_token_that_keeps_a_range_from_being_inserted_twice(context: Context) -> None:
    context.accepted(1, Closed())
    lease, payloads = context.mirror.take_lease(0, "one"), [context.messages[-1].payload]
    for _ in range(2):
        context.mirror.insert(0, lease, Range(1, 1, None, None), 1, payloads)
    assert context.rows("SELECT count() FROM DB.Closed") == [(1,)]
    context.mirror.insert(0, lease, Range(1, 2, None, None), 1, payloads)  # the same rows under another token
    assert context.rows("SELECT count() FROM DB.Closed") == [(2,)]


def forget_tokens(context: Context) -> None:
    for table in (context.mirror.tables.commits, context.mirror.tables.events):
        context.store.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 0")


@pytest.mark.parametrize("crash", ["after_pending", "between_tables", "after_insert"])
def test_a_range_that_is_there_is_not_inserted_again_when_its_token_is_forgotten(context: Context, crash: str) -> None:
    for number in range(1, 4):
        context.accepted(number, *[Closed()] * (number - 1))
    context.mirror = context.open(crashing(crash))
    forget_tokens(context)
    for _ in range(2):
        with suppress(Crash):
            context.loop(range_commits_max=2, failpoint=crashing(crash)).step()
    context.mirror = context.open()
    for _ in range(2):
        loop = context.loop(range_commits_max=2)
        while loop.step():
            pass
    assert context.rows("SELECT _number FROM DB.commits ORDER BY 1") == [(1,), (2,), (3,)]
    assert context.rows("SELECT _number FROM DB.Closed ORDER BY 1") == [(2,), (3,), (3,)]


def test_without_looking_for_the_range_that_fails(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    context.accepted(1, Closed())
    context.loop().step()
    forget_tokens(context)
    monkeypatch.setattr(Mirror, "check", lambda *_: None)
    context.loop()
    assert context.rows("SELECT count() FROM DB.Closed") == [(2,)]


def test_a_new_event_adds_its_columns_and_old_messages_are_read_by_their_schema(context: Context) -> None:
    context.accepted(1, OPENED)
    context.schemas.append(context.schema([Opened, Closed, Merged]))
    context.mirror = context.open()
    context.accepted(2, Merged("b"), Closed())
    context.accepted(3, OPENED)
    loop = context.loop()
    while loop.step():
        pass
    assert context.rows("SELECT `into`, _number FROM DB.Merged") == [("b", 2)]
    assert context.rows("SELECT count() FROM DB.Opened") == [(2,)]


def test_a_log_that_lacks_what_was_being_inserted_is_refused(context: Context) -> None:
    context.accepted(1, Closed())
    context.accepted(2, Closed())
    context.loop().step()
    del context.messages[-1]
    with pytest.raises(MagnetarError, match="does not give them any more"):
        context.loop()


@pytest.mark.parametrize(
    "lost",
    [
        "DELETE FROM DB.account__commits__g1 WHERE number = 3",
        "DELETE FROM DB.account__commits__g1 WHERE number = 5",
        "DELETE FROM DB.account__events__g1 WHERE number = 2",
        "DELETE FROM DB.account__events__g1 WHERE number = 5",
        "DELETE FROM magnetar.pending WHERE aggregate = 'NAME/Account' AND first > 1",
        "DELETE FROM magnetar.pending WHERE aggregate = 'NAME/Account'",
        "TRUNCATE TABLE DB.account__events__g1",
        "DROP TABLE DB.account__events__g1 SYNC",
        "DROP TABLE DB.account__commits__g1 SYNC",
    ],
)
def test_tables_that_lost_what_was_confirmed_are_not_written_any_more(context: Context, lost: str) -> None:
    for number in range(1, 6):
        context.accepted(number, Closed())
    loop = context.loop(range_commits_max=3)  # the claim and commits 1 and 2, then 3 to 5
    while loop.step():
        pass
    context.store.command(lost.replace("DB", quoted(context.name)).replace("NAME", context.name))
    context.mirror = context.open()  # as a projector that starts: it makes the tables that are missing
    with pytest.raises(StoreUnavailable, match="do not fit the log"):
        context.loop()


def test_a_wrong_query_is_refused_in_the_engines_words(store: Store) -> None:
    with pytest.raises(QueryRefused, match="nope"):
        store.read_only("SELECT * FROM nope", fmt="JSON")


@pytest.mark.parametrize(
    "sql", ["DROP DATABASE magnetar", "INSERT INTO magnetar.leases VALUES (1)", "SELECT 1 INTO OUTFILE 'x'"]
)
def test_a_users_query_changes_nothing(store: Store, sql: str) -> None:
    with pytest.raises(QueryRefused):
        store.read_only(sql, fmt="JSON")
    assert store.query("SELECT 1") == [(1,)]


def test_what_a_block_was_decoded_into_is_gone_with_the_range_even_if_it_failed(context: Context) -> None:
    context.accepted(1, Closed())

    def fail(_: str) -> None:
        raise StoreUnavailable("between the tables")

    left = "SELECT count() FROM system.tables WHERE is_temporary"
    context.mirror = context.open(failpoint=fail)
    with pytest.raises(StoreUnavailable, match="between the tables"):
        context.loop().step()
    assert context.rows(left) == [(0,)]
    assert list(context.folder.iterdir()) == []
    context.mirror = context.open()
    context.loop()
    assert context.rows(left) == [(0,)]
    assert context.rows("SELECT count() FROM DB.Closed") == [(1,)]
