"""A table whose columns somebody changed by hand is filled no more: nobody would miss what went with a column."""

from pathlib import Path
from typing import Any

import pytest
from magnetar.projections.columns import quoted
from magnetar.projections.store import Store
from magnetar.schemas import Event, StoreUnavailable

from tests.unit.projections.projected import Balance, Boxes, Large, Put
from tests.unit.projections.test_incremental import Shop, sales, sold
from tests.unit.projections.test_mirror import OPENED, Context
from tests.unit.projections.test_windows import START, ByHour, Doors, Passed

ALTERED = {
    "has no column {column}": "DROP COLUMN {column}",
    "has a String as its column {column}, made as ": "MODIFY COLUMN {column} String CODEC(ZSTD(1))",
}


def alter(store: Store, table: str, how: str, column: str) -> None:
    store.command(f"ALTER TABLE {table} {how.format(column=quoted(column))} SETTINGS mutations_sync = 2")


@pytest.mark.parametrize("says", ALTERED)
@pytest.mark.parametrize(
    ("kind", "projection", "event", "column"),
    [
        (Boxes, Large, Put(100), "amount"),
        (Boxes, Large, Put(100), "_number"),
        (Boxes, Balance, Put(100), "amount"),
        (Doors, ByHour, Passed("A", START, 1), "_late"),
    ],
)
def test_a_table_of_rows_or_of_a_fold(
    store: Store, tmp_path: Path, kind: type[Boxes], projection: type[Any], event: Event, column: str, says: str
) -> None:
    boxes = kind(store, tmp_path, projection)
    boxes.commit("a", event)
    boxes.run()
    boxes.open().prepare()
    alter(store, boxes.table.name, ALTERED[says], column)
    with pytest.raises(StoreUnavailable, match=says.format(column=column)) as refused:
        boxes.open().prepare()
    assert f"`magnetar rebuild` with the module and {boxes.table.table.target} fills" in refused.value.cure


@pytest.mark.parametrize("says", ALTERED)
def test_a_table_of_an_incremental_sql(store: Store, tmp_path: Path, says: str) -> None:
    shop = Shop(store, tmp_path)
    projection = sales("SELECT sku, sum(pieces) AS total FROM Sold GROUP BY sku", {"sku": str, "total": int})
    shop.sell([sold()])
    table = shop.open(projection, 1)
    shop.filled(table, 1)
    shop.open(projection, 1)
    alter(store, table.name, ALTERED[says], "_events")
    with pytest.raises(StoreUnavailable, match=says.format(column="_events")):
        shop.open(projection, 1)


@pytest.mark.parametrize("says", ALTERED)
@pytest.mark.parametrize(("table", "column"), [("events", "at"), ("events", "Opened.rate"), ("commits", "ledger")])
def test_a_mirror(store: Store, tmp_path: Path, table: str, column: str, says: str) -> None:
    context = Context(store, tmp_path)
    context.accepted(1, OPENED)
    context.loop().step()
    context.open()
    alter(store, getattr(context.mirror.tables, table), ALTERED[says], column)
    with pytest.raises(StoreUnavailable, match=says.format(column=column)) as refused:
        context.open()
    assert "`magnetar rebuild` with the module and Account fills a new table" in refused.value.cure
