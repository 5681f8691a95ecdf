"""What may be asked of the embedded engine, and what is refused: attacks on files, hosts, tables and other queries."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from magnetar.projections import engine_reader
from magnetar.projections.engine_reader import EngineReader, QueryLimits, Question
from magnetar.projections.statement import Statement
from magnetar.projections.store import Store
from magnetar.schemas import QueryRefused

READONLY = 164


@pytest.fixture(scope="module")
def reader(store: Store) -> EngineReader:
    store.command("CREATE DATABASE IF NOT EXISTS read_only")
    store.command("CREATE TABLE read_only.papers (id Int64, file String) ENGINE = MergeTree ORDER BY id")
    store.command("INSERT INTO read_only.papers SELECT number, 'a.pdf' FROM numbers(10)")
    return store.reader()


def answer(reader: EngineReader, sql: str, **more: object) -> str:
    return reader.ask(Question(sql=sql, **more)).whole().decode()  # type: ignore[arg-type]


def code_of(refused: pytest.ExceptionInfo[QueryRefused]) -> object:
    return refused.value.fields["code"]


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A file that no query may read."""
    paper = tmp_path / "paper.csv"
    paper.write_text("hunter2,hunter2\n")
    return paper


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, list[str]]]:
    """A host that no query may reach, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_GET  # noqa: N815 -- the names that the library looks for

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


WRITES = (
    """
INSERT INTO read_only.papers VALUES (1, 'x')
INSERT INTO read_only.papers FROM INFILE '{paper}' FORMAT CSV
INSERT INTO FUNCTION file('{paper}') SELECT 1
WITH 1 AS x INSERT INTO read_only.papers SELECT x, ''
CREATE TABLE read_only.x (a Int8) ENGINE = Memory
CREATE TEMPORARY TABLE x (a Int8)
CREATE FUNCTION f AS x -> x
CREATE USER x
GRANT ALL ON *.* TO default
ALTER TABLE read_only.papers DELETE WHERE 1
DELETE FROM read_only.papers WHERE 1
UPDATE read_only.papers SET file = '' WHERE 1
DROP TABLE read_only.papers
DROP DATABASE read_only
TRUNCATE TABLE read_only.papers
RENAME TABLE read_only.papers TO read_only.x
EXCHANGE TABLES read_only.papers AND read_only.papers
DETACH TABLE read_only.papers
ATTACH TABLE read_only.papers
OPTIMIZE TABLE read_only.papers
CHECK TABLE read_only.papers
BACKUP TABLE read_only.papers TO File('{paper}.backup')
BACKUP TABLE read_only.papers TO S3('http://{host}/b/', 'a', 'b')
RESTORE TABLE read_only.papers FROM File('{paper}.backup')
KILL QUERY WHERE 1
KILL MUTATION WHERE 1
SYSTEM SHUTDOWN
SYSTEM FLUSH LOGS
SET readonly = 0
USE read_only
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS max_memory_usage = 0
SELECT 1 INTO OUTFILE '{paper}.out'
SELECT 1 INTO OUTFILE '{paper}.out' TRUNCATE FORMAT CSV
SELECT 1 /* */ into -- x
 outfile '{paper}.out'
SHOW TABLES INTO OUTFILE '{paper}.out'
""".strip()
    .replace("\n outfile", "\x00 outfile")
    .split("\n")
)

READS = """
SELECT file('{paper}')
SELECT `file`('{paper}')
SELECT "file"('{paper}')
SELECT file /* x */ ('{paper}')
SELECT * APPLY(file) FROM (SELECT '{paper}')
SELECT * APPLY file FROM (SELECT '{paper}')
SELECT COLUMNS('a') APPLY(x -> file(x)) FROM (SELECT '{paper}' AS a)
SELECT * REPLACE (file(a) AS a) FROM (SELECT '{paper}' AS a)
SELECT arrayMap(file, ['{paper}'])
SELECT arrayMap(x -> file(x), ['{paper}'])
SELECT arrayMap(`file`, ['{paper}'])
WITH x -> file(x) AS f SELECT f('{paper}')
WITH (SELECT file('{paper}')) AS f SELECT f
WITH file AS f SELECT f('{paper}')
WITH file AS f SELECT arrayMap(f, ['{paper}'])
WITH file AS f SELECT * APPLY f FROM (SELECT '{paper}')
SELECT file AS f, arrayMap(f, ['{paper}'])
SELECT arrayMap(default.file, ['{paper}'])
SELECT arrayMap(if(1, file, file), ['{paper}'])
SELECT 1 UNION ALL SELECT length(file('{paper}'))
SELECT 1 WHERE file('{paper}') = ''
EXPLAIN QUERY TREE SELECT file('{paper}')
SELECT * FROM (EXPLAIN QUERY TREE SELECT file('{paper}'))
SELECT * FROM file('{paper}', 'LineAsString')
SELECT * FROM view(SELECT * FROM file('{paper}', 'LineAsString'))
FROM file('{paper}', 'LineAsString') SELECT *
DESCRIBE file('{paper}')
DESCRIBE TABLE (SELECT * FROM file('{paper}'))
EXPLAIN SELECT * FROM file('{paper}')
EXPLAIN TABLE OVERRIDE file('{paper}')
SELECT * FROM default.`{paper}`
SELECT * FROM '{paper}'
SELECT * FROM `{paper}`
DESCRIBE default.`{paper}`
EXISTS default.`{paper}`
EXISTS TABLE `{paper}`
SHOW CREATE TABLE default.`{paper}`
SELECT hasColumnInTable('default', '{paper}', 'c1')
SELECT * FROM merge('default', 'paper')
SELECT * FROM eval('SELECT file(''{paper}'')')
SELECT * FROM executable('cat', 'LineAsString', 'x String')
SELECT * FROM Python(paper)
SELECT * FROM sqlite('{paper}', 'x')
SELECT * FROM filesystem('/')
SELECT * FROM format(CSV, '{paper}')
SELECT 1 FORMAT Template SETTINGS format_template_row = '{paper}'
SELECT 1 FORMAT CapnProto SETTINGS format_schema = '{paper}:x'
""".strip().split("\n")

REACHES = """
SELECT * FROM url('http://{host}/', 'LineAsString')
SELECT * FROM s3('http://{host}/x/y.csv')
SELECT * FROM remote('{host}', system.one)
SELECT * FROM remoteSecure('{host}', system.one)
SELECT * FROM cluster('{host}', system.one)
SELECT * FROM clusterAllReplicas('{host}', system.one)
SELECT * FROM mysql('{host}', 'a', 'b', 'c', 'd')
SELECT * FROM postgresql('{host}', 'a', 'b', 'c', 'd')
SELECT * FROM mongodb('{host}', 'a', 'b', 'c', 'd', 'x Int8')
SELECT * FROM redis('{host}', 'k', 'k String')
SELECT * FROM hdfs('hdfs://{host}/x', 'CSV')
SELECT * FROM urlCluster('x', 'http://{host}/')
SELECT * FROM default.`http://{host}/x.csv`
DESCRIBE url('http://{host}/x.csv')
DESCRIBE TABLE s3('http://{host}/x/y.csv')
DESCRIBE default.`http://{host}/x.csv`
SELECT aiGenerate('x', 'y')
""".strip().split("\n")


@pytest.mark.parametrize("attack", WRITES + READS + REACHES)
def test_an_attack_is_refused_and_leaves_no_trace(
    attack: str, reader: EngineReader, paper: Path, host: tuple[str, list[str]], store: Store
) -> None:
    address, asked = host
    sql = attack.replace("\x00", "\n").format(paper=paper, host=address)
    with pytest.raises(QueryRefused) as refused:
        answer(reader, sql)
    assert "hunter2" not in str(refused.value)
    assert [path.name for path in paper.parent.iterdir()] == [paper.name]
    assert paper.read_text() == "hunter2,hunter2\n"
    assert asked == []
    assert store.query("SELECT count(), min(file), max(file) FROM read_only.papers") == [(10, "a.pdf", "a.pdf")]
    if attack in WRITES and not attack.startswith(("UPDATE", "SELECT 1 INTO OUTFILE '{paper}.out' TRUNC")):
        assert code_of(refused) == READONLY, refused.value


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE read_only.papers",
        "SELECT 1 -- ;\n; KILL QUERY WHERE 1",
        "SELECT ';'; INSERT INTO read_only.papers VALUES (1, 'x')",
    ],
)
def test_a_second_statement_is_refused_with_the_first(reader: EngineReader, store: Store, sql: str) -> None:
    with pytest.raises(QueryRefused, match="Multi-statements are not allowed"):
        answer(reader, sql)
    assert store.query("SELECT count() FROM read_only.papers") == [(10,)]


@pytest.mark.parametrize("sql", ["SELECT arrayMap({f:Identifier}, ['{paper}'])", "SELECT * FROM {f:Identifier}"])
def test_a_parameter_is_no_way_to_name_a_function(reader: EngineReader, paper: Path, sql: str) -> None:
    with pytest.raises(QueryRefused):
        answer(reader, sql.replace("{paper}", str(paper)), parameters={"f": "file"})


def test_a_parameter_is_no_way_to_look_for_files(reader: EngineReader, paper: Path) -> None:
    with pytest.raises(QueryRefused, match="READONLY"):
        answer(reader, "EXISTS TABLE {f:Identifier}", parameters={"f": str(paper)})


@pytest.mark.parametrize(
    "name",
    [
        *("format_schema", "output_format_schema", "format_template_row", "format_template_resultset", "log_comment"),
        *("allow_introspection_functions", "allow_experimental_eval_table_function", "user_files_path", "profile"),
        *("max_parser_depth", "x = 1, readonly", "file_like_engine", "temporary_files_codec", "allow_ddl"),
    ],
)
def test_a_setting_that_names_a_file_or_allows_more_is_refused(reader: EngineReader, paper: Path, name: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        answer(reader, "SELECT 1", settings={name: str(paper)})
    assert code_of(refused) == READONLY


def test_readonly_cannot_be_set_to_0(reader: EngineReader) -> None:
    with pytest.raises(QueryRefused) as refused:
        answer(reader, "SELECT 1", settings={"readonly": "0"})
    assert code_of(refused) == READONLY
    assert answer(reader, "SELECT getSetting('readonly')", settings={"readonly": "2"}) == "1\n"


@pytest.mark.parametrize("value", ["1, readonly = 0", "1', readonly = '0", "\\', readonly = 0 --"])
def test_a_settings_value_is_no_way_to_set_another(reader: EngineReader, value: str) -> None:
    with pytest.raises(QueryRefused):
        answer(reader, "SELECT 1", settings={"max_threads": value})


def test_a_database_is_no_way_to_say_more(reader: EngineReader) -> None:
    with pytest.raises(QueryRefused) as refused:
        answer(reader, "SELECT 1", database="default`; DROP TABLE read_only.papers --")
    assert code_of(refused) == 81


def test_only_a_plain_look_at_the_settings_lets_clients_see_what_they_may_set(reader: EngineReader) -> None:
    plain = "SELECT name, value, readonly FROM system.settings LIMIT 10000"
    assert "max_threads\t" in answer(reader, plain)
    more = "SELECT getSetting('readonly') FROM system.settings LIMIT 1"
    assert answer(reader, more) == "1\n"


HARMLESS = {
    "SELECT 1;": "1\n",
    "SELECT 'INTO OUTFILE', 'file(1)', ';'": "INTO OUTFILE\tfile(1)\t;\n",
    "-- a comment\nSELECT /* ; */ 2 -- and one more": "2\n",
    "SELECT file FROM read_only.papers WHERE file != '' ORDER BY file LIMIT 1": "a.pdf\n",
    "SELECT id, file FROM read_only.papers ORDER BY id LIMIT 1": "0\ta.pdf\n",
    "SELECT upper(p.file) FROM read_only.papers AS p LIMIT 1": "A.PDF\n",
    "SELECT upper(papers.file) FROM read_only.papers LIMIT 1": "A.PDF\n",
    "SELECT format('{}-{}', 'a', 'b')": "a-b\n",
    "SELECT $$it's$$ AS `a b`": "it\\'s\n",
    "WITH 3 AS x SELECT x": "3\n",
    "(SELECT 1) UNION ALL (SELECT 1)": "1\n1\n",
    "SELECT 1 AS x FORMAT JSONEachRow": '{"x":1}\n',
    "EXISTS read_only.papers": "1\n",
    "SHOW TABLES FROM read_only": "papers\n",
    "EXPLAIN SYNTAX SELECT 1 FROM system.one": "SELECT 1\\nFROM system.one\n",
    "SELECT name FROM system.tables WHERE database = 'read_only'": "papers\n",
}


@pytest.mark.parametrize("sql", HARMLESS)
def test_what_only_reads_is_answered(reader: EngineReader, sql: str) -> None:
    assert answer(reader, sql) == HARMLESS[sql]


def test_a_column_with_the_name_of_a_function_needs_its_table_within_a_call(reader: EngineReader) -> None:
    with pytest.raises(QueryRefused, match=re.escape("name its table too: t.file")):
        answer(reader, "SELECT upper(file) FROM read_only.papers")


def test_without_the_judgement_the_engine_would_read_write_and_kill(
    reader: EngineReader, paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that these tests can fail."""
    monkeypatch.setattr(
        engine_reader, "checked", lambda text, *_: Statement(text, None, text.startswith("SELECT"), False)
    )
    assert "hunter2" in answer(reader, f"SELECT file('{paper}')")
    assert "hunter2" in answer(
        reader, "SELECT arrayMap({f:Identifier}, ['" + str(paper) + "'])", parameters={"f": "file"}
    )
    assert answer(reader, f"DESCRIBE file('{paper}')").startswith("c1\t")
    assert answer(reader, "KILL QUERY WHERE 1") != ""
    answer(reader, f"SELECT 1 INTO OUTFILE '{paper}.out'")
    assert Path(f"{paper}.out").exists()


def test_a_query_that_takes_too_long_is_ended(store: Store) -> None:
    reader = store.reader(QueryLimits(seconds_max=0.5))
    with pytest.raises(QueryRefused, match="TIMEOUT_EXCEEDED"):
        answer(reader, "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
    with pytest.raises(QueryRefused, match="TIMEOUT_EXCEEDED"):
        answer(
            reader, "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)", settings={"max_execution_time": "0"}
        )


def test_a_query_that_takes_too_much_memory_is_ended_and_the_engine_goes_on(store: Store) -> None:
    reader = store.reader(QueryLimits(memory_bytes_max=100_000_000))
    for settings in ({}, {"max_memory_usage": "0"}, {"max_memory_usage": "100000000000"}):
        with pytest.raises(QueryRefused, match="MEMORY_LIMIT_EXCEEDED"):
            answer(reader, "SELECT groupArray(number) FROM numbers(1000000000)", settings=settings)
    assert answer(reader, "SELECT 1") == "1\n"


def test_an_answer_that_must_be_made_whole_is_bounded(store: Store) -> None:
    reader = store.reader(QueryLimits(whole_bytes_max=1_000_000))
    with pytest.raises(QueryRefused, match="TOO_MANY_ROWS_OR_BYTES"):
        answer(reader, "SELECT number FROM numbers(1000000) FORMAT JSON")
    assert answer(reader, "SELECT number FROM numbers(1000000) FORMAT TSV").endswith("\n999999\n")


def test_what_one_question_sets_is_unset_for_the_next(reader: EngineReader) -> None:
    assert answer(reader, "SELECT getSetting('max_threads')", settings={"max_threads": "1"}) == "1\n"
    assert answer(reader, "SELECT getSetting('join_use_nulls')", settings={"join_use_nulls": "1"}) == "true\n"
    assert answer(reader, "SELECT getSetting('join_use_nulls')") == "false\n"
    assert answer(reader, "SELECT currentDatabase()", database="read_only") == "read_only\n"
    assert answer(reader, "SELECT currentDatabase()") == "default\n"


def test_closing_ends_what_runs_and_takes_nothing_more(store: Store) -> None:
    reader = store.reader()
    caught: list[QueryRefused] = []

    def ask() -> None:
        try:
            answer(reader, "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
        except QueryRefused as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: bool(reader._running))
    reader.close()
    thread.join(30)
    assert "QUERY_WAS_CANCELLED" in caught[0].what
    with pytest.raises(QueryRefused, match="being closed"):
        answer(reader, "SELECT 1")


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
