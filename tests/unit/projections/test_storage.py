"""What a Rows says of its table: in which order it is stored, and how long its rows are kept."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from magnetar.projections import Rows
from magnetar.projections.contracts import contract_of
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.projected_table import ProjectedTable
from magnetar.projections.rows_table import RowsTable
from magnetar.projections.snapshot import filled_query, shown_query
from magnetar.projections.store import Store
from magnetar.schemas import Meta, StoreUnavailable

from examples.flights.pipeline import LateDeparture
from tests.unit.projections.projected import Boxes, Large, Put, Sorted

DAY_US = 24 * 3600 * 1_000_000


class Packed(Large, wire_name="Large"):
    """The same, compressed otherwise."""

    codecs: ClassVar = {"amount": "Delta, LZ4"}


class KeptForEver(Rows, wire_name="Amounts"):
    """What was put in."""

    amount: int

    @classmethod
    def project(cls, event: Put, meta: Meta) -> Iterator[Self]:
        yield cls(event.amount)


class Kept(KeptForEver, wire_name="Amounts"):
    """What was put in."""

    keep = timedelta(days=30)


class KeptLonger(KeptForEver, wire_name="Amounts"):
    """What was put in."""

    keep = timedelta(days=50)


def days_ago(days: float) -> int:
    return int(time.time() * 1e6 - days * DAY_US)


def stored(boxes: Boxes, what: str) -> str:
    """What the engine says of the table."""
    ((found,),) = boxes.store.query(
        f"SELECT {what} FROM system.tables WHERE database = {{d:String}} AND name = {{t:String}}",
        {"d": boxes.context, "t": f"{boxes.table.view}__g1"},
    )
    return str(found)


def deleted_by_age(boxes: Boxes) -> None:
    """ClickHouse does it when it likes: now."""
    boxes.store.command(f"ALTER TABLE {boxes.table.name} MATERIALIZE TTL SETTINGS mutations_sync = 2")
    boxes.store.command(f"OPTIMIZE TABLE {boxes.table.name} FINAL")


def in_table(boxes: Boxes) -> list[int]:
    return [row[0] for row in boxes.store.query(f"SELECT amount FROM {boxes.table.name} ORDER BY amount")]


def shown(boxes: Boxes) -> list[int]:
    return [row[0] for row in boxes.rows("amount", "ORDER BY amount")]


def test_the_order_is_that_of_the_class_and_behind_it_that_in_which_rows_come(store: Store, tmp_path: Path) -> None:
    assert stored(Boxes(store, tmp_path, Large), "sorting_key") == "_at, _id, _version"
    assert stored(Boxes(store, tmp_path, Sorted), "sorting_key") == "by, amount, _at, _id, _version"


def test_a_codec_is_that_of_the_class_where_it_says_one(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Packed)
    where = {"d": boxes.context, "t": f"{boxes.table.view}__g1"}
    found = store.query(
        "SELECT name, compression_codec FROM system.columns "
        "WHERE database = {d:String} AND table = {t:String} AND NOT startsWith(name, '_')",
        where,
    )
    assert {tuple(row) for row in found} == {("amount", "CODEC(Delta(8), LZ4)"), ("by", "CODEC(ZSTD(1))")}
    assert fingerprint_of(Packed) == fingerprint_of(Large), "other bytes on disk are no other rows"


def test_another_order_is_another_table_and_another_time_to_live_is_not() -> None:
    assert fingerprint_of(LateDeparture) == "d90bac2dede0ffaa", "tables that are there would have to be rebuilt"
    assert fingerprint_of(Sorted) != fingerprint_of(Large)
    assert fingerprint_of(Kept) == fingerprint_of(KeptLonger) == fingerprint_of(KeptForEver)


def test_a_row_that_is_over_is_not_shown_and_its_going_is_no_loss(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Kept)
    store.command(f"SYSTEM STOP MERGES {boxes.table.name}")
    for amount, days in ((1, 400), (2, 31), (3, 29), (4, 0)):
        boxes.commit("a", Put(amount), at_us=days_ago(days))
    boxes.run(range_commits_max=3)
    assert in_table(boxes) == [1, 2, 3, 4]
    assert shown(boxes) == [3, 4]
    store.command(f"SYSTEM START MERGES {boxes.table.name}")
    deleted_by_age(boxes)
    assert in_table(boxes) == [3, 4]
    boxes.commit("a", Put(5), at_us=days_ago(0))
    boxes.run()
    # As if it were a day later, within the quarter for which nobody needs to look.
    store.command(f"ALTER TABLE {boxes.table.name} DELETE WHERE amount = 3 SETTINGS mutations_sync = 2")
    boxes.run()
    boxes.run()
    assert shown(boxes) == [4, 5]


@pytest.mark.parametrize("lost", ["amount = 4", "1"])
def test_a_row_that_is_not_over_is_still_noticed_when_it_is_lost(store: Store, tmp_path: Path, lost: str) -> None:
    boxes = Boxes(store, tmp_path, Kept)
    for amount, days in ((1, 400), (4, 1), (5, 1), (6, 1)):
        boxes.commit("a", Put(amount), at_us=days_ago(days))
    boxes.run(range_commits_max=2)
    store.command(f"ALTER TABLE {boxes.table.name} DELETE WHERE {lost} SETTINGS mutations_sync = 2")
    with pytest.raises(StoreUnavailable, match="Rows were lost"):
        boxes.loop()


def test_a_row_too_many_is_noticed_however_long_nobody_has_looked(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Kept)
    for amount in range(4):
        boxes.commit("a", Put(amount), at_us=days_ago(1))
    boxes.run(range_commits_max=2)
    store.command(
        "ALTER TABLE magnetar.pending UPDATE counted_until = 1 WHERE counted_until != 0 SETTINGS mutations_sync = 2"
    )
    store.command(f"INSERT INTO {boxes.table.name} SELECT * FROM {boxes.table.name} SETTINGS insert_deduplicate = 0")
    with pytest.raises(StoreUnavailable, match="does not fit the log"):
        boxes.loop()


def test_rows_that_went_while_nobody_looked_for_long_are_no_loss(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Kept)
    for amount, days in ((1, 20), (2, 1)):
        boxes.commit("a", Put(amount), at_us=days_ago(days))
    boxes.run(range_commits_max=2)
    # As if all that were eleven days ago: nobody has looked for longer than a quarter of the time to live.
    store.command(
        f"ALTER TABLE {boxes.table.name} DELETE WHERE amount = 1 SETTINGS mutations_sync = 2",
    )
    store.command(
        "ALTER TABLE magnetar.pending UPDATE counted_since = counted_since - 950400, "
        "counted_until = counted_until - 950400 WHERE counted_until != 0 SETTINGS mutations_sync = 2"
    )
    boxes.commit("a", Put(3), at_us=days_ago(0))
    boxes.run()
    assert shown(boxes) == [2, 3]


def test_who_does_not_look_away_looks_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = Boxes(store, tmp_path, Kept)
    for amount in range(6):
        boxes.commit("a", Put(amount), at_us=days_ago(1))
    table = boxes.open()
    loop = boxes.loop(table, range_commits_max=3)
    assert loop.step()
    before = table.scope(0)
    later = time.monotonic() + 4 * 24 * 3600  # an eighth of thirty days
    monkeypatch.setattr("magnetar.projections.rows_table.time.monotonic", lambda: later)
    monkeypatch.setattr(RowsTable, "_now", lambda _: int(time.time()) + 4 * 24 * 3600)
    assert loop.step()
    assert table.scope(0).until >= before.until + 3 * 24 * 3600
    assert table.counted(0) == len(shown(boxes))


@pytest.mark.parametrize(
    ("then", "now", "clause"),
    [
        (Kept, KeptLonger, "TTL _at + toIntervalSecond(4320000) "),
        (KeptLonger, Kept, "TTL _at + toIntervalSecond(2592000) "),
        (KeptForEver, Kept, "TTL _at + toIntervalSecond(2592000) "),
        (Kept, KeptForEver, ""),
    ],
)
def test_another_time_to_live_is_told_to_the_table_that_is_there(
    store: Store, tmp_path: Path, then: type[Any], now: type[Any], clause: str
) -> None:
    boxes = Boxes(store, tmp_path, then)
    for amount, days in ((1, 40), (2, 10)):
        boxes.commit("a", Put(amount), at_us=days_ago(days))
    boxes.run()
    boxes.projection = now
    table: ProjectedTable = boxes.open()
    table.prepare()
    table.show()
    assert f"_version) {clause}SETTINGS" in stored(boxes, "engine_full").replace("`", "")
    deleted_by_age(boxes) if clause else None
    boxes.commit("a", Put(3), at_us=days_ago(0))
    boxes.run(boxes.open())
    boxes.run(boxes.open())
    assert shown(boxes)[-2:] == [2, 3]
    assert now is not Kept or shown(boxes) == [2, 3]


def test_what_is_over_is_in_no_comparison(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Kept)
    for amount, days in ((1, 400), (2, 30 - 1 / 48), (3, 1)):
        boxes.commit("a", Put(amount), at_us=days_ago(days))
    boxes.run()
    live = shown_query(
        Kept, boxes.context, 1, {"amount": "Int64"}, {("Box", 0): 3}, aggregates=["Box"], partitions=boxes.partitions
    )
    for query in (live, filled_query(Kept, boxes.table.name)):
        rows = store.query(f"SELECT amount, _is_late FROM ({query}) ORDER BY amount")
        assert [tuple(row) for row in rows] == [(2, 1), (3, 0)]


def test_what_is_not_said_is_nothing() -> None:
    assert contract_of(Large).storage.sorting == ("_at", "_id", "_version")
    assert contract_of(Large).storage.keep_seconds == 0
