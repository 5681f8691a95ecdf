"""Questions to the embedded engine: read-only, bounded, each on a handle of its own, answered block by block."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
from magnetar.schemas import QueryRefused

from .columns import literal, quoted
from .statement import DENIED_NAMES, Statement, checked, clickhouse_error, refused

STREAMED: Final = frozenset(
    (
        *("Native", "RowBinary", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "CustomSeparated"),
        *("JSONEachRow", "JSONLines", "NDJSON", "JSONCompactEachRow", "LineAsString", "TSKV"),
    )
)
"""The formats without a header or a footer: the engine writes each block as if it were the whole answer."""

TEXT_BYTES_MAX: Final = 4 << 20
"""The longest statement that the engine parses. (ClickHouse's own default is 256 KiB.)"""

NATIVE_REVISION_MAX: Final = 54405
"""The engine writes `Native` in its first revision. An asker up to this one looks which he got; a newer one takes it
for his own and reads nonsense."""

CLOSE_SECONDS_MAX: Final = 10.0
"""How long the end of the process waits for questions to end, which takes the engine a second at worst."""

CONTAINER_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container finds how much memory it may have: control groups of version 2, and of version 1."""

_MAY_SET: Final = re.compile(
    r"output_format_(?!schema$)\w+|format_(csv|tsv|json|decimal|binary)_\w+|date_time_(in|out)put_format|session_timezone|"
    r"(cast|join|group_by|aggregate_functions|optimize|query_plan|low_cardinality)_\w+|extremes|final|enable_analyzer|limit|offset|"
    r"(max|min|preferred)_(threads|block_size\w*|result_\w+|rows_\w+|bytes_\w+|execution_time|memory_usage|query_size)|"
    r"(result|read|timeout|distinct|sort|set|join|group_by)_overflow_mode|prefer_\w+|any_join_\w+|partial_\w+|"
    r"count_distinct_implementation|short_circuit_function_evaluation|use_variant_as_common_type|union_default_mode|"
    r"except_default_mode|intersect_default_mode|totals_mode|transform_null_in"
)
"""What a question may set. Not here: what names a file (`format_schema`, `output_format_schema`), what allows more."""

_IDLE: Final = frozenset(("readonly", "max_query_size", "enable_http_compression"))
"""Settings that a question may bring along, and that change nothing here."""


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """What one question may take, so that none can end the process that it shares with the projector."""

    seconds_max: float = 60.0
    memory_bytes_max: int = 0
    """0 is an eighth of the memory of the machine or the container: four questions at once leave half of it."""
    whole_bytes_max: int = 64 << 20
    """The largest answer in a format that cannot be written block by block (JSON, Arrow, Parquet, …)."""
    concurrent_max: int = 4
    """How many questions run at a time; more wait for their turn."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One statement with what belongs to it, as ClickHouse's HTTP protocol has it."""

    sql: str
    default_format: str = "TabSeparated"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values of `{name:Type}`, written as in a TabSeparated file: a line feed is `\\n`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    native_revision: int = 0
    """The newest form of the format `Native` that the asker reads."""
    query_id: str = ""
    """The asker's name for it, which he finds in the answer's headers."""
    mark: str = field(default_factory=lambda: str(uuid4()), init=False)
    """Our own name for it while it runs."""


class Answer:
    """The blocks of one answer. Close it, or the question goes on."""

    def __init__(self, fmt: str, close: Callable[[], None]) -> None:
        self.format = fmt
        self.rows = 0
        self.read_rows = 0
        self.read_bytes = 0
        self.blocks: Iterator[bytes] = iter(())
        self.close = close
        """End the question, answered or not."""

    def block(self) -> bytes:
        """The next bytes; none when the answer has ended. Raises QueryRefused in the engine's words."""
        return next(self.blocks, b"")

    def whole(self) -> bytes:
        """All that is left of the answer. Raises QueryRefused in the engine's words."""
        try:
            return b"".join(self.blocks)
        finally:
            self.close()


class EngineReader:
    """Asks the engine at `path`, which this process has open. Safe to share between threads."""

    def __init__(self, path: str, limits: QueryLimits | None = None) -> None:
        self.limits = limits or QueryLimits()
        self._memory_bytes_max = self.limits.memory_bytes_max or machine_bytes() // 8
        self._path = os.path.realpath(path)  # the engine compares paths as texts
        self._lock = threading.Lock()
        self._denied: frozenset[str] | None = None
        self._running: set[str] = set()
        self._is_closed = False

    def ask(self, question: Question) -> Answer:
        """Begin to answer.

        1. Opens a handle: what is set on it ends with it.
        2. Lets the engine parse the statement, and judges what it made of it.
        3. Runs that under `readonly = 1` and the limits.

        Raises QueryRefused with ClickHouse's own words, its code in `fields["code"]`.
        """
        with _in_its_words():
            connection = self._open(question.mark)
            try:
                statement = self._judge(connection, question)
                fmt = _format(statement, question)
                connection.query(self._set(question, statement, fmt), "Null")
                if question.database:
                    connection.query(f"USE {_database(question.database)}", "Null")
                answer = Answer(fmt, partial(self._shut, connection, question.mark))
                _run(answer, connection, statement, dict(question.parameters))
            except BaseException:
                self._shut(connection, question.mark)
                raise
            return answer

    def end(self, *questions: Question) -> None:
        """End questions whose answers other threads wait for."""
        self._kill({question.mark for question in questions})

    def timezone(self) -> str:
        """The engine's time zone."""
        return self.ask(Question(sql="SELECT timezone()")).whole().decode().strip()

    def close(self) -> None:
        """Take no more questions, end those that run, and wait until their answers are closed."""
        with self._lock:
            self._is_closed = True
        deadline = time.monotonic() + CLOSE_SECONDS_MAX
        while (running := set(self._running)) and time.monotonic() < deadline:
            self._kill(running)
            time.sleep(0.02)

    def _kill(self, marks: set[str]) -> None:
        listed = ", ".join(map(literal, marks))
        connection = self._connect()
        try:
            connection.query(f"KILL QUERY WHERE Settings['log_comment'] IN ({listed}) ASYNC", "Null")
        finally:
            connection.close()

    def _open(self, mark: str) -> Any:
        with self._lock:
            if self._is_closed:
                raise clickhouse_error("QUERY_WAS_CANCELLED", "The engine is being closed.")
            self._running.add(mark)
        try:
            return self._connect()
        except BaseException:
            self._running.discard(mark)
            raise

    def _shut(self, connection: Any, mark: str) -> None:
        connection.close()
        self._running.discard(mark)

    def _connect(self) -> Any:
        import chdb

        return chdb.connect(self._path)  # type: ignore[no-untyped-call] # chdb says no types

    def _judge(self, connection: Any, question: Question) -> Statement:
        if self._denied is None:
            with self._lock:
                self._denied = frozenset(connection.query(DENIED_NAMES, "TSVRaw").bytes().decode().split())
        escaped = question.sql.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\0", "\\0")
        connection.query(f"SET max_query_size = {TEXT_BYTES_MAX}", "Null")
        parsed = connection.query("SELECT formatQuerySingleLine({q:String})", "TSVRaw", params={"q": escaped})
        return checked(parsed.bytes().decode(errors="replace").removesuffix("\n"), question.parameters, self._denied)

    def _set(self, question: Question, statement: Statement, fmt: str) -> str:
        limits = self.limits
        chosen = {name: value for name, value in question.settings.items() if name not in _IDLE}
        for name in chosen:
            if not _MAY_SET.fullmatch(name):
                raise refused(f"Cannot modify '{name}' setting in readonly mode.")
        chosen["max_execution_time"] = _at_most(limits.seconds_max, chosen.get("max_execution_time"))
        chosen["max_memory_usage"] = _at_most(self._memory_bytes_max, chosen.get("max_memory_usage"))
        if fmt not in STREAMED:
            chosen["max_result_bytes"] = _at_most(limits.whole_bytes_max, chosen.get("max_result_bytes"))
        chosen["log_comment"] = question.mark
        if question.settings.get("readonly", "1") == "0":
            raise refused("Cannot modify 'readonly' setting in readonly mode.")
        chosen["enable_http_compression"] = "1"  # clients look whether it is on before they ask for it
        chosen["readonly"] = "2" if statement.asks_for_settings else "1"
        return "SET " + ", ".join(f"{name} = {literal(value)}" for name, value in chosen.items())


def _run(answer: Answer, connection: Any, statement: Statement, parameters: dict[str, str]) -> None:
    """Start the query; an error that comes before the first block is raised here."""
    is_streamed = statement.is_select and answer.format in STREAMED  # of the others, the engine does not stream
    ask = connection.send_query if is_streamed else connection.query
    result = ask(statement.text, answer.format, params=parameters)
    blocks = _blocks(answer, result if is_streamed else [result])
    first = next(blocks, b"")
    if not first and answer.format == "Native":
        first = _native_header(connection, statement.text, parameters)
    answer.blocks = chain([first], blocks)


def _blocks(answer: Answer, results: Iterable[Any]) -> Iterator[bytes]:
    with _in_its_words():
        for result in results:
            answer.rows += result.rows_read()
            answer.read_rows = max(answer.read_rows, result.storage_rows_read())
            answer.read_bytes = max(answer.read_bytes, result.storage_bytes_read())
            if block := result.bytes():
                yield block


def _native_header(connection: Any, sql: str, parameters: dict[str, str]) -> bytes:
    """The block without rows that names the columns: a server begins with it, the embedded engine leaves it out."""
    found = connection.query(sql, "JSONCompact", params=parameters).bytes()
    columns = msgspec.json.decode(found)["meta"] if found else []
    texts = [text.encode() for column in columns for text in (column["name"], column["type"])]
    return _varint(len(columns)) + _varint(0) + b"".join(_varint(len(text)) + text for text in texts)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def machine_bytes(limits: Iterable[Path] = CONTAINER_LIMITS) -> int:
    """The memory of the machine, or of the container, where that may have less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in limits:
        with suppress(OSError, ValueError):  # not there, or `max`
            found.append(int(limit.read_text()))
    return min(found)


def _format(statement: Statement, question: Question) -> str:
    fmt = statement.format or question.default_format
    if fmt == "Native" and question.native_revision > NATIVE_REVISION_MAX:
        raise clickhouse_error("NOT_IMPLEMENTED", "Native is written here in its first revision only.")
    return fmt


def _database(name: str) -> str:
    try:
        return quoted(name)
    except ValueError:
        raise clickhouse_error("UNKNOWN_DATABASE", f"There is no database {name!r}.") from None


def _at_most(limit: float, wanted: str | None) -> str:
    """The smaller of a limit and what was asked for; 0 asks for no limit."""
    try:
        number = float(wanted or 0)
    except ValueError:
        return str(wanted)  # the engine says what is wrong with it
    return f"{min(number, limit) if number > 0 else limit:.15g}"


@contextmanager
def _in_its_words() -> Generator[None]:
    """Turn the engine's error into ours, with its words and its code."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        found = re.search(r"Code: (\d+)\. DB::Exception: ", text)
        if found is None:
            raise QueryRefused(f"The query was refused: {text}", code=0) from error
        text = re.sub(r"^(Code: \d+\. DB::Exception: )+", found[0], text[found.start() :])
        text = re.sub(r": In scope SELECT formatQuerySingleLine\(.*\)\. \(", ". (", text, flags=re.DOTALL)
        raise QueryRefused(text.strip(), code=int(found[1])) from error
