"""What is asked of a store: the same in this process, through the HTTP front of an engine in another one, and of a
server, of which it is also asked that blocks come to it whole.
"""

import json
import math
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from magnetar.projections.container import container
from magnetar.projections.decoding_trial import misreading
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.store import Store
from magnetar.schemas import QueryRefused, StoreUnavailable
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.framing import write_bytes, write_long

from tests.clickhouse_server import clickhouse
from tests.unit.projections.test_mirror import Closed, Denied, Open
from tests.unit.projections.test_types import Everything

STATEMENTS = [
    "CREATE DATABASE suite",
    """CREATE TABLE suite.sold (id String, pieces Int64, price Decimal(18, 2), at DateTime64(6, 'UTC'), day Date32,
    token UUID, note Nullable(String), tags Array(String), kind LowCardinality(String), sizes Map(String, Int64),
    of Tuple(name String, age Int64), is_new Bool, weight Float64) ENGINE = MergeTree ORDER BY id""",
    """INSERT INTO suite.sold SELECT leftPad(toString(number), 6, '0'), number - 5, toDecimal64(number, 2) / 4,
    toDateTime64('2026-01-31 23:59:59.000001', 6, 'UTC') + number, toDate32('1969-07-20') + number,
    toUUID('01890000-0000-7000-8000-00000000000' || toString(number % 10)), if(number % 2, NULL, 'it''s\\n\\\\ñ'),
    arrayMap(i -> 't' || toString(i), range(number % 3)), ['tea', 'cup'][number % 2 + 1],
    map('a', number, 'b', -1), ('x' || toString(number), number), number % 2, number / 8 FROM numbers(100000)""",
    "CREATE VIEW suite.by_kind AS SELECT kind, sum(pieces) AS pieces FROM suite.sold GROUP BY kind",
]
SERVE = """
import json, sys
from pathlib import Path
from magnetar.projections.http_front import HttpFront
from magnetar.projections.store import Store, embedded_dsn
folder = Path(sys.argv[1])
store = Store(embedded_dsn(folder))
for statement in json.loads(sys.stdin.readline()):
    store.command(statement)
front = HttpFront(store.reader(), folder)
front.start()
print((folder / "query-endpoint.json").read_text().strip(), flush=True)
sys.stdin.readline()
front.close()
store.close()
"""


WRITABLE = {"in this process": "store", "a server": "server"}
"""Fixtures of stores that may be written to."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A server."""
    with clickhouse(tmp_path_factory.mktemp("server")) as running:
        store = Store(running.endpoint)
        yield store
        store.close()


@pytest.fixture(scope="module", params=["in this process", "over HTTP", "a server"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the suite's tables."""
    if request.param != "over HTTP":
        store: Store = request.getfixturevalue(WRITABLE[request.param])
        for statement in STATEMENTS:
            store.command(statement)
        yield store
        store.command("DROP DATABASE suite")
        return
    folder: Path = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-c", SERVE, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdin is not None
        assert served.stdout is not None
        served.stdin.write(json.dumps(STATEMENTS) + "\n")
        served.stdin.flush()
        endpoint = json.loads(served.stdout.readline())
        store = Store(Endpoint(endpoint["url"], endpoint["token"]))
        yield store
        store.close()
        served.communicate("\n", timeout=60)


def test_values_come_as_the_same_python_types(asked: Store) -> None:
    (row,) = asked.rows("SELECT * FROM suite.sold WHERE id = '000004'")
    assert row == {
        "id": "000004",
        "pieces": -1,
        "price": Decimal("1.00"),
        "at": datetime(2026, 2, 1, 0, 0, 3, 1, UTC),
        "day": date(1969, 7, 24),
        "token": uuid.UUID("01890000-0000-7000-8000-000000000004"),
        "note": "it's\n\\ñ",
        "tags": ["t0"],
        "kind": "tea",
        "sizes": {"a": 4, "b": -1},
        "of": {"name": "x4", "age": 4},
        "is_new": False,
        "weight": 0.5,
    }
    assert row["at"].tzinfo is not None
    ((note,),) = asked.query("SELECT note FROM suite.sold WHERE id = '000005'")
    assert note is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", "it's\\ \n\t{x:String} \N{SNOWMAN}"),
        ("String", ""),
        ("UInt64", 2**64 - 1),
        ("Int64", -(2**63)),
        ("Float64", 0.1),
        ("Nullable(String)", None),
        ("Array(String)", ["a'b", "c,d", ""]),
        ("Array(UInt16)", [0, 65535]),
    ],
)
def test_parameters_are_bound_and_come_back_as_they_were(asked: Store, kind: str, value: Any) -> None:
    sql = f"SELECT {{x:{kind}}} AS x"
    assert [list(row) for row in asked.query(sql, {"x": value})] == [[value]]
    assert asked.rows(sql, {"x": value}) == [{"x": value}]


def test_a_column_may_be_asked_for_in_another_form(asked: Store) -> None:
    (row,) = asked.rows("SELECT token FROM suite.sold WHERE id = '000001'", formats={"token": "string"})
    assert row == {"token": "01890000-0000-7000-8000-000000000001"}


@pytest.mark.parametrize(
    ("fmt", "answer"),
    [
        ("JSONEachRow", b'{"kind":"cup","pieces":2499750000}\n{"kind":"tea","pieces":2499700000}\n'),
        ("CSVWithNames", b'"kind","pieces"\n"cup",2499750000\n"tea",2499700000\n'),
        ("TSV", b"cup\t2499750000\ntea\t2499700000\n"),
    ],
)
def test_an_answer_in_a_format_has_the_same_bytes(asked: Store, fmt: str, answer: bytes) -> None:
    assert asked.read_only("SELECT kind, pieces FROM suite.by_kind ORDER BY kind", fmt=fmt) == answer


def test_a_large_answer_is_whole(asked: Store) -> None:
    rows = asked.query("SELECT id, pieces, tags FROM suite.sold ORDER BY id")
    assert len(rows) == 100_000
    assert sum(row[1] for row in rows) == sum(range(100_000)) - 500_000
    assert asked.read_only("SELECT * FROM suite.sold", fmt="JSONEachRow").count(b"\n") == 100_000


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT * FROM suite.nothing", "UNKNOWN_TABLE"),
        ("SELECT nothing FROM suite.sold", "UNKNOWN_IDENTIFIER"),
        ("SELECT intDiv(1, 0)", "ILLEGAL_DIVISION"),
        ("SELECT throwIf(id = '050000', 'here') FROM suite.sold", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELEKT 1", "Code: 62"),
    ],
)
def test_what_is_refused_is_refused_in_the_engines_words(asked: Store, sql: str, name: str) -> None:
    for ask in (asked.query, asked.rows, lambda sql: asked.read_only(sql, fmt="TSV")):
        with pytest.raises(QueryRefused) as refused:
            ask(sql)
        assert name in refused.value.what
    assert [tuple(row) for row in asked.query("SELECT 1")] == [(1,)]  # and it goes on


def test_a_users_query_writes_nothing(asked: Store) -> None:
    for statement in ("INSERT INTO suite.sold (id) VALUES ('x')", "DROP TABLE suite.sold", "TRUNCATE TABLE suite.sold"):
        with pytest.raises(QueryRefused):
            asked.rows(statement)
        with pytest.raises(QueryRefused):
            asked.read_only(statement, fmt="TSV")
    assert [tuple(row) for row in asked.query("SELECT count() FROM suite.sold")] == [(100_000,)]


def test_many_threads_ask_at_once(asked: Store) -> None:
    def ask(nth: int) -> int:
        (row,) = asked.rows("SELECT count() AS n FROM suite.sold WHERE pieces % 16 = {nth:Int64}", {"nth": nth})
        return int(row["n"])

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(16)))
    assert found == [sum(1 for pieces in range(-5, 99_995) if math.fmod(pieces, 16) == nth) for nth in range(16)]


# --- blocks: in this process from files, to a server sent along -------------------------------------------------------

_RECORD = json.dumps(
    {
        "type": "record",
        "name": "Pair",
        "fields": [{"name": "key", "type": "string"}, {"name": "n", "type": "long"}],
    }
)
_STRUCTURE = "key String, n Int64"


@pytest.fixture(params=WRITABLE)
def pairs(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with an empty table of pairs."""
    store: Store = request.getfixturevalue(WRITABLE[request.param])
    store.command("CREATE DATABASE paired")
    store.command("CREATE TABLE paired.pairs (key String, n Int64) ENGINE = MergeTree ORDER BY key")
    yield store
    store.command("DROP DATABASE paired SYNC")


def block_of(keys: range) -> tuple[bytes, bytes, bytes]:
    return container(_RECORD, [write_bytes(f"k{n}".encode()) + write_long(n) for n in keys])


def test_a_large_block_is_inserted_whole_row_by_row(pairs: Store, tmp_path: Path) -> None:
    with pairs.block(block_of(range(200_000)), _STRUCTURE, tmp_path / "block") as block:
        pairs.command(
            f"INSERT INTO paired.pairs SELECT key, n FROM {block.source} SETTINGS max_threads = 1", block=block
        )
    ((count, total, wrong),) = pairs.query(
        "SELECT count(), sum(n), countIf(key != 'k' || toString(n)) FROM paired.pairs"
    )
    assert (count, total, wrong) == (200_000, sum(range(200_000)), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_block_is_looked_up_in_a_query(pairs: Store, tmp_path: Path) -> None:
    with pairs.block(block_of(range(50)), _STRUCTURE, tmp_path / "block") as block:
        found = pairs.query(
            f"SELECT count() FROM numbers(100) WHERE concat('k', toString(number)) IN (SELECT key FROM {block.keys})",
            block=block,
        )
    assert [tuple(row) for row in found] == [(50,)]


def test_the_commits_of_all_types_are_read_as_they_were_written(pairs: Store, tmp_path: Path) -> None:
    schema = AggregateSchema("paired", "Thing", commands=[Open], events=[Everything, Closed], rejections=[Denied])
    assert misreading(pairs, schema.commit_json, tmp_path / "tried") is None
    assert list(tmp_path.iterdir()) == []


def test_a_statement_that_fails_behind_its_first_rows_is_an_error(pairs: Store, tmp_path: Path) -> None:
    with pairs.block(block_of(range(100_000)), _STRUCTURE, tmp_path / "block") as block:
        sql = f"INSERT INTO paired.pairs SELECT key, n FROM {block.source} WHERE throwIf(n = 99999, 'here') = 0"
        with pytest.raises(StoreUnavailable, match="here"):
            pairs.command(f"{sql} SETTINGS max_block_size = 1000000, min_insert_block_size_rows = 1000000", block=block)
    assert [tuple(row) for row in pairs.query("SELECT count() FROM paired.pairs")] == [(0,)]


def test_a_query_is_described_and_a_view_made_within_a_database(pairs: Store) -> None:
    before = pairs.query("SELECT currentDatabase()")
    assert pairs.described("SELECT key, n + 1 AS more FROM pairs", "paired") == {"key": "String", "more": "Int64"}
    pairs.command("CREATE OR REPLACE VIEW paired.seen AS SELECT key FROM pairs", database="paired")
    assert list(pairs.query("SELECT key FROM paired.seen")) == []
    with pytest.raises(QueryRefused, match="UNKNOWN_TABLE"):
        pairs.described("SELECT 1 FROM nothing", "paired")
    assert pairs.query("SELECT currentDatabase()") == before


def test_a_server_takes_compressed_inserts_of_any_client_whole(tmp_path: Path) -> None:
    with clickhouse(tmp_path) as server:
        client = clickhouse_connect.get_client(**server.endpoint.client_options, compress="lz4")
        client.command("CREATE TABLE default.pairs (key String, n Int64) ENGINE = MergeTree ORDER BY key")
        client.insert("pairs", [[f"k{n}", n] for n in range(100_000)], column_names=["key", "n"])
        ((count, total),) = client.query("SELECT count(), sum(n) FROM pairs").result_rows
        client.close()
    assert (count, total) == (100_000, sum(range(100_000)))


def test_a_server_that_is_gone_is_said_to_be_and_asked_again_when_it_is_back(tmp_path: Path) -> None:
    with clickhouse(tmp_path) as server:
        store = Store(server.endpoint)
        server.kill()
        for ask in (store.query, store.command, store.rows, lambda sql: store.read_only(sql, fmt="TSV")):
            with pytest.raises(StoreUnavailable, match="Connection refused"):
                ask("SELECT 1")
        with pytest.raises(StoreUnavailable, match="does not let writer ask it"):
            Store(server.endpoint)
        server.start()
        assert [tuple(row) for row in store.query("SELECT 1")] == [(1,)]
        assert server.endpoint.token not in repr(server.endpoint)
        store.close()
