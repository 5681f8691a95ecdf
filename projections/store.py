"""ClickHouse, in this process or over HTTP, through `clickhouse-connect`."""

from __future__ import annotations

import contextlib
import fcntl
import re
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.external import ExternalData
from magnetar.schemas import DataFolderError, QueryRefused, StoreUnavailable

from .cluster import INSERT_SETTINGS, READ_SETTINGS, on_cluster
from .columns import literal
from .endpoint import Endpoint
from .engine_reader import EngineReader, QueryLimits, Question
from .legible import legible
from .statement import is_answer

_FILLED_ANEW = (
    " Nothing is lost from the log: without the folder `clickhouse` of the data folder, new tables are filled from it."
)

TESTED: Final = "26.9"
"""The version of the engine that the tests run on, without its patch level."""

_KEYS: Final = "keys"
"""The name under which a server has the rows that come along with a query."""

_AT_ONCE: Final = {"send_progress_in_http_headers": "0", "wait_end_of_query": "1", "async_insert": "0"}
"""A server that begins its answer before a statement has ended could not say in it that the statement failed; and one
that gathers inserts of several would let each wait for others."""


_CAUSE: Final = re.compile(r"Caused by \w+\(.*?\): (.*?)[\"']\)\)")
"""What is behind an error of the way to a server, in the words of urllib3."""

_AROUND: Final = re.compile(r"^Received ClickHouse exception, code: \d+, server response: | \(for url [^)]*\)$")


class Block(NamedTuple):
    """Rows for one statement, and how it names them."""

    source: str
    """What stands behind FROM in an INSERT."""
    keys: str
    """What stands behind FROM in a query."""
    structure: str
    format: str
    body: bytes | None = None
    """The rows, if they are sent along; else they are in a file."""


class Store:
    """One ClickHouse, with a handle for each thread that uses it. Safe to share between threads.

    The embedded engine reads a block from a file; a server has it sent along with the statement. In all else they are
    the same.
    """

    def __init__(self, at: str | Endpoint) -> None:
        """Opens the engine by its DSN, or connects to a server. Raises StoreUnavailable or DataFolderError."""
        self._at = at
        self._lock = threading.Lock()
        self._local = threading.local()
        self._handles: list[Any] = []
        if isinstance(at, str):
            _remove_empty_statements(_folder_of(at))
        try:
            self.query("SELECT 1")
        except ModuleNotFoundError as error:
            raise StoreUnavailable(
                "The embedded ClickHouse is not installed.", cure="pip install 'magnetar[embedded]'"
            ) from error
        except (ClickHouseError, RuntimeError, QueryRefused, StoreUnavailable) as error:
            raise _not_opened(at, error) from error

    @property
    def is_embedded(self) -> bool:
        """Whether it is the engine in this process."""
        return isinstance(self._at, str)

    @property
    def cluster(self) -> str:
        """The cluster over which the tables are replicated; empty for one engine."""
        return "" if isinstance(self._at, str) else self._at.cluster

    def command(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        block: Block | None = None,
        database: str | None = None,
    ) -> None:
        """Run a statement that gives no rows, an INSERT that reads a block too. When this returns, it is done.

        Tables without a database are of `database`. Raises StoreUnavailable with ClickHouse's own words: it may be done
        all the same.
        """
        body = None if block is None else block.body
        if block is not None and body is not None:
            sql = f"{sql} FORMAT {block.format}"
        settings: dict[str, Any] = {} if self.is_embedded else dict(_AT_ONCE)
        if self.cluster:
            sql, settings = on_cluster(sql, self.cluster), settings | INSERT_SETTINGS
        try:
            with self._within(database) as handle:
                said = handle.command(sql, parameters=dict(parameters or {}), data=body, settings=settings)
        except (ClickHouseError, RuntimeError) as error:
            raise _refused(error) from error
        if isinstance(said, str) and "DB::Exception" in said:
            raise _refused(RuntimeError(said))

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, block: Block | None = None
    ) -> Sequence[Sequence[Any]]:
        """The rows of a query, of one that reads a block too.

        Raises QueryRefused with ClickHouse's own words, or StoreUnavailable if a server does not answer.
        """
        along = None
        if block is not None and block.body is not None:
            along = ExternalData(file_name=_KEYS, data=block.body, fmt=block.format, structure=block.structure)
        more: dict[str, Any] = {} if along is None else {"external_data": along}
        try:
            handle = self._handle()
            if self.cluster and _may_set(handle):
                more["settings"] = READ_SETTINGS
            found = handle.query(sql, parameters=dict(parameters or {}), **more)
            rows: Sequence[Sequence[Any]] = found.result_rows
        except (ClickHouseError, RuntimeError) as error:
            raise self._not_answered(error) from error
        return rows

    @contextlib.contextmanager
    def block(self, parts: Iterable[bytes], structure: str, file: Path, *, fmt: str = "Avro") -> Generator[Block]:
        """Rows for statements, for as long as they need them: in this file where the engine is embedded."""
        if not self.is_embedded:
            body = b"".join(parts)
            del parts  # megabytes, for as long as ClickHouse takes
            yield Block(f"input({literal(structure)})", _KEYS, structure, fmt, body)
            return
        source = f"file({literal(str(file))}, {literal(fmt)}, {literal(structure)})"
        try:
            _write(file, parts)
            del parts
            yield Block(source, source, structure, fmt)
        finally:
            with contextlib.suppress(OSError):
                file.unlink()

    def described(self, query: str, database: str) -> dict[str, str]:
        """The columns of a query, and their types, where tables without a database are of this one.

        Raises what `query` does.
        """
        try:
            with self._within(database) as handle:
                return {row[0]: row[1] for row in handle.query(f"DESCRIBE TABLE ({query})").result_rows}
        except (ClickHouseError, RuntimeError) as error:
            raise self._not_answered(error) from error

    def reader(self, limits: QueryLimits | None = None) -> EngineReader:
        """Who answers others' questions to the embedded engine."""
        return EngineReader(str(_folder_of(str(self._at))), limits)

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, formats: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a user's query by column, as Python values, without writing. Raises what `query` does.

        `formats` are `clickhouse-connect`'s, by column.
        """
        try:
            with contextlib.closing(self._open()) as handle:  # of its own: it would stay read-only
                found = handle.query(
                    sql,
                    parameters=dict(parameters or {}),
                    column_formats=dict(formats or {}),
                    settings=_without_writing(handle),
                    tz_mode="aware",
                )
                return list(found.named_results())
        except (ClickHouseError, RuntimeError) as error:
            raise self._not_answered(error) from error

    def read_only(self, sql: str, *, fmt: str) -> bytes:
        """The answer of a user's query as bytes, in one of ClickHouse's formats, without writing.

        Raises what `query` does.
        """
        if self.is_embedded:
            found = self.reader().ask(Question(sql=sql, default_format=fmt))
            return legible(found.whole(), found.format)
        try:
            handle = self._handle()
            answer: bytes = handle.raw_query(sql, settings=_without_writing(handle), fmt=fmt)
        except ClickHouseError as error:
            raise self._not_answered(error) from error
        return answer

    def answer(self, sql: str, fmt: str, settings: Mapping[str, Any]) -> bytes:
        """The answer of a query of ours as bytes, in one of ClickHouse's formats. Raises what `query` does."""
        try:
            found: bytes = self._handle().raw_query(sql, settings=dict(settings), fmt=fmt)
        except (ClickHouseError, RuntimeError) as error:
            raise self._not_answered(error) from error
        return found

    def close(self) -> None:
        """Close the engine or the connection."""
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()
            self._local = threading.local()

    def _handle(self) -> Any:
        """This thread's handle: the calls on one handle wait for each other, those on several do not."""
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = self._open()
            with self._lock:
                self._handles.append(handle)
        return handle

    @contextlib.contextmanager
    def _within(self, database: str | None) -> Generator[Any]:
        """A handle whose tables without a database are of this one; the thread's own where none is named."""
        if database is None:
            yield self._handle()
        else:  # of its own: the thread's would stay there, also when the database is gone
            with contextlib.closing(self._open(database=database)) as handle:
                yield handle

    def _not_answered(self, error: Exception) -> QueryRefused | StoreUnavailable:
        if not self.is_embedded and not is_answer(str(error)):
            return StoreUnavailable(
                f"ClickHouse does not answer: {first_line(error)}",
                cure="Nothing is lost. Whoever asked tries again, or do so; and see whether it runs.",
            )
        return QueryRefused(f"The query was refused: {first_line(error)}")

    def _open(self, **more: Any) -> Any:
        if isinstance(self._at, str):
            return clickhouse_connect.get_client(dsn=self._at, **more)
        return clickhouse_connect.get_client(**self._at.client_options, **more)


def _refused(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(
        f"ClickHouse refused a statement: {first_line(error)}",
        cure="The log has everything. Mend what ClickHouse says; a projector tries again by itself.",
    )


def _not_opened(at: str | Endpoint, error: Exception) -> StoreUnavailable | DataFolderError:
    if isinstance(at, Endpoint):
        why = first_line(error)
        return StoreUnavailable(
            f"ClickHouse at {at.url} does not let {at.user} ask it: {why}",
            cure="Check MAGNETAR_CLICKHOUSE_CA, and the host name in MAGNETAR_CLICKHOUSE."
            if "CERTIFICATE" in why
            else "See MAGNETAR_CLICKHOUSE, MAGNETAR_CLICKHOUSE_USER and MAGNETAR_CLICKHOUSE_PASSWORD_FILE; then "
            "whether it runs.",
        )
    if "already initialized with path" in str(error):
        return StoreUnavailable(
            f"This process has ClickHouse open on another folder: {first_line(error)}",
            cure="One at a time: close the other one first, or use another process.",
        )
    if (pid := _holder(_folder_of(at))) is not None:
        return DataFolderError(
            f"Another process, {pid}, has the embedded ClickHouse of this data folder open.",
            cure="Ask through that process: `magnetar query` does so while `magnetar dev` runs.",
            pid=pid,
        )
    return StoreUnavailable(
        f"ClickHouse cannot be opened: {first_line(error)}", cure=f"Version {TESTED} is tested.{_FILLED_ANEW}"
    )


def _folder_of(dsn: str) -> Path:
    return Path(dsn.removeprefix("chdb://"))


def _write(path: Path, parts: Iterable[bytes]) -> None:
    try:
        with path.open("wb") as file:
            file.writelines(parts)
    except OSError as error:
        raise StoreUnavailable(
            f"A block for ClickHouse cannot be written to {path}: {error.strerror}.",
            cure="Make room; it goes on then.",
        ) from error


def _without_writing(handle: Any) -> dict[str, int]:
    """The setting that forbids writing; a ClickHouse that lets nobody change it, because it forbids it, takes none."""
    return {"readonly": 1} if _may_set(handle) else {}


def _may_set(handle: Any) -> bool:
    """Whether its user may set something for a statement."""
    setting = handle.server_settings.get("readonly")
    return setting is None or not setting.readonly or str(setting.value) in {"", "0"}


def _holder(engine: Path) -> str | None:
    """The process that has the engine's folder open: it holds a lock on the file `status`, and its pid stands in it.

    The engine's own error does not say so.
    """
    try:
        with (engine / "status").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.readline().removeprefix("PID:").strip() or "unknown"
    except OSError:
        pass
    return None


def embedded_dsn(folder: Path) -> str:
    """The DSN of the engine within a data folder."""
    return f"chdb:///{folder.absolute() / 'clickhouse'}"


def first_line(error: BaseException) -> str:
    """An error of ClickHouse, or of the way to it, in one line, without the address and all that was sent to it."""
    text = " ".join(str(error).split())
    if (cause := _CAUSE.search(text)) is not None:
        return cause[1]
    return _AROUND.sub("", text)[:600]


def _remove_empty_statements(folder: Path) -> None:
    """A table that was created on a full disk has left an empty file in the place of its statement, and the engine does
    not open with one there. Whoever wanted the table creates it again."""
    if _holder(folder) is None:
        for path in folder.glob("store/*/*/*.sql"):
            if path.stat().st_size == 0:
                path.unlink()
