"""`clickhouse-connect` and curl in other processes, against an engine that is open in this one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from magnetar.projections.http_front import HttpFront
from magnetar.projections.store import Store

CONNECT = """
import json, sys
import clickhouse_connect
endpoint = json.load(open(".magnetar/query-endpoint.json"))
port = int(endpoint["url"].rsplit(":", 1)[1].strip("/"))

def connect(**more):
    return clickhouse_connect.get_client(
        **{"host": "127.0.0.1", "port": port, "username": "default", "password": endpoint["token"]} | more
    )

def error(work):
    try:
        work()
    except Exception as error:
        return [type(error).__name__, getattr(error, "code", None), getattr(error, "name", None), str(error)]

client = connect()
"""


@pytest.fixture(scope="module")
def folder(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as `magnetar dev` leaves it, with the tables of the README's shop."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / ".magnetar").mkdir()
    for statement in (
        "CREATE DATABASE IF NOT EXISTS shop",
        """CREATE TABLE shop.Bought (_id String, _at DateTime64(3, 'UTC'), sku LowCardinality(String), pieces Int64,
        note Nullable(String), tags Array(String)) ENGINE = MergeTree ORDER BY _id""",
        """INSERT INTO shop.Bought SELECT toString(number), toDateTime64('2026-01-01 10:00:00', 3, 'UTC') + number,
        ['tea', 'cup'][number % 2 + 1], number % 5, NULL, ['a', 'b'] FROM numbers(1000)""",
        "CREATE VIEW shop.best_sellers AS SELECT sku, sum(pieces) AS sold FROM shop.Bought GROUP BY sku",
    ):
        store.command(statement)
    front = HttpFront(store.reader(), folder / ".magnetar")
    front.start()
    yield folder
    front.close()
    store.command("DROP DATABASE shop")


def run(folder: Path, code: str, *, prelude: str = CONNECT) -> Any:
    """What a script prints, in a process of its own; the last line as JSON."""
    command = [sys.executable, "-c", prelude + code]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_client_connects_queries_and_binds(folder: Path) -> None:
    code = """
odd = "it's\\n\\t\\\\ ü"
found = [
    client.ping(),
    client.query("SELECT * FROM shop.best_sellers ORDER BY sku").result_rows,
    client.query("SELECT sku, pieces FROM shop.Bought WHERE _id = {id:String}", parameters={"id": "3"}).first_row,
    client.query("SELECT {s:String}, {l:Array(String)}", parameters={"s": odd, "l": ["a'", "b"]}).first_row,
    client.query("SELECT %(x)s", parameters={"x": "it's"}).first_row,
    client.query("SELECT length({l:Array(Int64)})", parameters={"l": list(range(50_000))}).first_row,
    client.command("SELECT count() FROM shop.Bought"),
    str(client.query("SELECT _at FROM shop.Bought WHERE _id = '0'").first_row[0]),
]
print(json.dumps(found))
"""
    assert run(folder, code) == [
        True,
        [["cup", 1000], ["tea", 1000]],
        ["cup", 3],
        ["it's\n\t\\ ü", ["a'", "b"]],
        ["it's"],
        [50_000],
        1000,
        "2026-01-01 10:00:00",
    ]


def test_the_client_gets_frames_arrow_and_other_formats(folder: Path) -> None:
    code = """
sql = "SELECT _id, pieces, note, tags FROM shop.Bought ORDER BY length(_id), _id LIMIT 3"
frame, table = client.query_df(sql), client.query_arrow(sql)
formats = ("CSV", "JSON", "JSONEachRow", "TabSeparatedWithNames", "Parquet")
raw = {fmt: client.raw_query(sql, fmt=fmt) for fmt in formats}
found = [
    list(frame["pieces"]), list(frame.columns), table.column("pieces").to_pylist(), table.column_names,
    raw["CSV"].decode(), raw["JSONEachRow"].decode(), raw["TabSeparatedWithNames"].decode(),
    json.loads(raw["JSON"])["rows"], raw["Parquet"][:4].decode(),
]
print(json.dumps([str(f) for f in found]))
"""
    names = "['_id', 'pieces', 'note', 'tags']"
    csv = "\"0\",0,\\N,\"['a','b']\"\n\"1\",1,\\N,\"['a','b']\"\n\"2\",2,\\N,\"['a','b']\"\n"
    rows = "".join(f'{{"_id":"{n}","pieces":{n},"note":null,"tags":["a","b"]}}\n' for n in range(3))
    tsv = "_id\tpieces\tnote\ttags\n" + "".join(f"{n}\t{n}\t\\N\t['a','b']\n" for n in range(3))
    assert run(folder, code) == ["[0, 1, 2]", names, "[0, 1, 2]", names, csv, rows, tsv, "3", "PAR1"]


def test_an_empty_answer_still_has_its_columns(folder: Path) -> None:
    code = """
answers = [client.query(f"SELECT sku, note, tags FROM shop.Bought {end}") for end in ("WHERE 0", "LIMIT 0")]
print(json.dumps([[a.result_rows, a.column_names, [t.name for t in a.column_types]] for a in answers]))
"""
    (rows, names, types), (_, more_names, _) = run(folder, code)
    assert (rows, names, more_names) == ([], ["sku", "note", "tags"], ["sku", "note", "tags"])
    assert types[1:] == ["Nullable(String)", "Array(String)"]


@pytest.mark.parametrize("compress", ["lz4", "gzip", "zstd", "deflate", False])
def test_a_million_rows_are_streamed(folder: Path, compress: str | bool) -> None:
    code = f"""
client, rows, total = connect(compress={compress!r}), 0, 0
with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(1000000)") as stream:
    for block in stream:
        rows += len(block)
        total += sum(number for number, _ in block)
print(json.dumps([rows, total]))
"""
    assert run(folder, code) == [1_000_000, 499_999_500_000]


def test_the_client_sets_for_one_query_a_database_and_a_session(folder: Path) -> None:
    code = """
of_shop = connect(database="shop", session_id="mine", settings={"max_threads": 2})
found = [
    client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 1234}).first_row[0],
    client.query("SELECT getSetting('max_block_size')").first_row[0] != 1234,
    of_shop.query("SELECT count(), currentDatabase(), getSetting('max_threads') FROM Bought").first_row,
]
print(json.dumps(found))
"""
    assert run(folder, code) == [1234, True, [1000, "shop", 2]]


def test_the_clients_errors_carry_the_engines_code_and_name(folder: Path) -> None:
    code = """
print(json.dumps([
    error(lambda: client.query("SELECT * FROM nope"))[:3],
    error(lambda: client.query("SELECT 1; SELECT 2"))[:3],
    error(lambda: client.command("DROP TABLE shop.Bought"))[:3],
    error(lambda: client.insert("shop.Bought", [["x"]], column_names=["_id"]))[:3],
    error(lambda: client.query("SELECT 1", settings={"format_schema": "x"}))[:3],
    error(lambda: connect(password="wrong"))[:3],
    error(lambda: connect(database="nope").query("SELECT 1"))[:3],
    error(lambda: client.query("SELECT number, throwIf(number = 1500000) FROM numbers(2000000)").result_rows)[:3],
]))
"""
    assert run(folder, code) == [
        ["DatabaseError", 60, "UNKNOWN_TABLE"],
        ["DatabaseError", 62, "SYNTAX_ERROR"],
        ["DatabaseError", 164, "READONLY"],
        ["DatabaseError", 48, "NOT_IMPLEMENTED"],
        ["DatabaseError", 164, "READONLY"],
        ["DatabaseError", 516, "AUTHENTICATION_FAILED"],
        ["DatabaseError", 81, "UNKNOWN_DATABASE"],
        ["StreamFailureError", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"],
    ]


def test_one_client_asks_from_many_threads_at_once(folder: Path) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
client = connect(autogenerate_session_id=False)
with ThreadPoolExecutor(20) as pool:
    asked = [pool.submit(client.query, "SELECT {n:Int32}", parameters={"n": n}) for n in range(100)]
    print(json.dumps([one.result().first_row[0] for one in asked]))
"""
    assert run(folder, code) == list(range(100))


def test_what_other_clients_ask_first_is_answered(folder: Path) -> None:
    """What Grafana's plugins, SQLAlchemy and BI tools ask, sent by clickhouse-connect."""
    code = """
asked = [
    "SELECT version()",
    "SELECT timezone()",
    "SELECT 1 AS ok FORMAT JSON",
    "SELECT currentDatabase(), currentUser()",
    "SELECT displayName(), version(), revision(), timezone()",
    "SHOW DATABASES",
    "SHOW TABLES FROM shop",
    "SHOW CREATE TABLE shop.Bought",
    "SHOW PROCESSLIST",
    "DESCRIBE TABLE shop.Bought",
    "EXISTS TABLE shop.Bought",
    "EXPLAIN SELECT * FROM shop.best_sellers",
    "SELECT name FROM system.databases",
    "SELECT name, engine FROM system.tables WHERE database = 'shop'",
    "SELECT name, type FROM system.columns WHERE table = 'Bought'",
    "SELECT name, value, readonly FROM system.settings",
    "SELECT name FROM system.functions LIMIT 1",
    "SELECT * FROM system.data_type_families LIMIT 1",
    "SELECT * FROM INFORMATION_SCHEMA.tables WHERE table_schema = 'shop'",
    "SELECT toUInt64(toStartOfInterval(_at, INTERVAL 10 second)) * 1000 AS t, count() AS c FROM shop.Bought "
    "GROUP BY t ORDER BY t FORMAT JSON",
]
print(json.dumps([len(client.raw_query(sql)) > 0 for sql in asked]))
"""
    assert all(run(folder, code))
