"""Codecs of columns: chosen by type, never for tables that are there, and never in the way of anything."""

import re
from pathlib import Path
from typing import Any

import pytest
from magnetar.projections.columns import quoted
from magnetar.projections.compression import CONTIGUOUS, compressed
from magnetar.projections.store import Store
from magnetar.projections.tables import MirrorTables
from magnetar.schemas.aggregate_schema import AggregateSchema

from tests.unit.projections.projected import EVENTS, Balance, Boxes, Large, Put, Touch


@pytest.mark.parametrize(
    ("definition", "codec"),
    [
        ("Int64", "T64, ZSTD(1)"),
        ("Nullable(Int64) COMMENT 'minutes'", "T64, ZSTD(1)"),
        ("UInt8", "T64, ZSTD(1)"),
        ("DateTime64(6, 'UTC') DEFAULT now64(6)", "Delta, ZSTD(1)"),
        ("Nullable(Date32)", "Delta, ZSTD(1)"),
        ("String COMMENT 'Int64 CODEC(LZ4)'", "ZSTD(1)"),
        ("LowCardinality(String)", "ZSTD(1)"),
        ("Decimal(18, 2)", "ZSTD(1)"),
        ("SimpleAggregateFunction(max, Int64)", "ZSTD(1)"),
    ],
)
def test_a_codec_is_of_the_type(definition: str, codec: str) -> None:
    assert compressed(definition) == f"{definition} CODEC({codec})"


def test_a_codec_that_is_named_is_taken() -> None:
    assert compressed("Int64", CONTIGUOUS) == "Int64 CODEC(DoubleDelta, ZSTD(1))"
    assert compressed("String CODEC(ZSTD)") == "String CODEC(ZSTD)"


def codecs(store: Store, database: str, table: str) -> dict[str, str]:
    rows = store.query(
        "SELECT name, compression_codec FROM system.columns WHERE database = {d:String} AND table = {t:String}",
        {"d": database, "t": table},
    )
    return {str(name): str(codec) for name, codec in rows}


def test_every_column_of_a_mirror_has_one(store: Store) -> None:
    schema = AggregateSchema("compressed", "Box", commands=[Touch], events=EVENTS, rejections=[])
    store.command("CREATE DATABASE IF NOT EXISTS compressed")
    for statement in MirrorTables(schema, partitions=4).definitions():
        store.command(statement)
    events, commits = (codecs(store, "compressed", f"box__{what}__g1") for what in ("events", "commits"))
    assert "" not in {*events.values(), *commits.values()}
    assert events["number"] == "CODEC(Delta(8), ZSTD(1))"
    assert commits["number"] == commits["ledger"] == "CODEC(DoubleDelta, ZSTD(1))"
    assert events["Put.amount"] == "CODEC(T64, ZSTD(1))"


@pytest.mark.parametrize("projection", [Large, Balance])
def test_a_table_that_was_made_without_codecs_is_fed_on_as_it_is(
    store: Store, tmp_path: Path, projection: type[Any]
) -> None:
    boxes = Boxes(store, tmp_path, projection)
    before = re.sub(r" CODEC\((?!ZSTD\)).*?\)(?=,?\n)", "", boxes.table.definition())
    assert before.count("CODEC") < boxes.table.definition().count("CODEC")
    boxes.table.drop()
    store.command(before)
    boxes.commit("a", Put(100))
    boxes.run()
    table = boxes.open()
    table.prepare()
    boxes.commit("a", Put(200))
    boxes.run(table)
    assert codecs(store, boxes.context, f"{boxes.table.view}__g1")["_number"] == ""
    assert len(boxes.rows("amount")) == (3 if projection is Large else 1)


def test_a_type_that_is_widened_keeps_its_codec(store: Store, tmp_path: Path) -> None:
    boxes = Boxes(store, tmp_path, Large)
    name = f"{quoted(boxes.context)}.widened"
    store.command(f"CREATE TABLE {name} (t Tuple(a Int64) CODEC(ZSTD(1))) ENGINE = MergeTree ORDER BY tuple()")
    store.command(f"ALTER TABLE {name} MODIFY COLUMN t Tuple(a Int64, b Int64)")
    assert codecs(store, boxes.context, "widened") == {"t": "CODEC(ZSTD(1))"}
