"""ClickHouse, in this process or over HTTP, through `clickhouse-connect`."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from magnetar.schemas import DataFolderError, QueryRefused, StoreUnavailable

from .engine_reader import EngineReader, QueryLimits, Question

_FILLED_ANEW = (
    " Nothing is lost from the log: without the folder `clickhouse` of the data folder, new tables are filled from it."
)

PROBE = "SELECT CAST(tuple(toInt64(1)), 'Nullable(Tuple(x Int64))').x"


class Store:
    """One ClickHouse, with a handle for each thread that uses it. Safe to share between threads."""

    def __init__(self, dsn: str) -> None:
        self.is_embedded = dsn.startswith("chdb:")
        self._dsn = dsn
        self._lock = threading.Lock()
        self._local = threading.local()
        self._handles: list[Any] = []
        if self.is_embedded:
            _remove_empty_statements(Path(dsn.removeprefix("chdb://")))
        try:
            self.query(PROBE)
        except ModuleNotFoundError as error:
            raise StoreUnavailable(
                "The embedded ClickHouse is not installed.", cure="pip install 'magnetar[embedded]'"
            ) from error
        except (ClickHouseError, RuntimeError, QueryRefused) as error:
            if "already initialized with path" in str(error):
                raise StoreUnavailable(
                    f"This process has ClickHouse open on another folder: {first_line(error)}",
                    cure="One at a time: close the other one first, or use another process.",
                ) from error
            if self.is_embedded and (pid := _holder(Path(dsn.removeprefix("chdb://")))) is not None:
                raise DataFolderError(
                    f"Another process, {pid}, has the embedded ClickHouse of this data folder open.",
                    cure="Ask through that process: `magnetar query` does so while `magnetar dev` runs.",
                    pid=pid,
                ) from error
            raise StoreUnavailable(
                f"ClickHouse cannot be opened: {first_line(error)}",
                cure=f"Version 26.9 is tested.{_FILLED_ANEW if self.is_embedded else ''}",
            ) from error

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that gives no rows. Raises StoreUnavailable with ClickHouse's own words."""
        try:
            self._handle().command(sql, parameters=dict(parameters or {}))
        except (ClickHouseError, RuntimeError) as error:
            raise StoreUnavailable(
                f"ClickHouse refused a statement: {first_line(error)}",
                cure="The log has everything. Mend what ClickHouse says; a projector tries again by itself.",
            ) from error

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """The rows of a query. Raises QueryRefused with ClickHouse's own words."""
        try:
            rows: Sequence[Sequence[Any]] = self._handle().query(sql, parameters=dict(parameters or {})).result_rows
        except (ClickHouseError, RuntimeError) as error:
            raise QueryRefused(f"The query was refused: {first_line(error)}") from error
        return rows

    def reader(self, limits: QueryLimits | None = None) -> EngineReader:
        """Who answers others' questions to the embedded engine."""
        return EngineReader(self._dsn.removeprefix("chdb://"), limits)

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, formats: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a user's query by column, as Python values, without writing. Raises QueryRefused.

        `formats` are `clickhouse-connect`'s, by column.
        """
        handle = clickhouse_connect.get_client(dsn=self._dsn)  # of its own: it would stay read-only
        try:
            found = handle.query(
                sql,
                parameters=dict(parameters or {}),
                column_formats=dict(formats or {}),
                settings=_without_writing(handle),
                tz_mode="aware",
            )
            return list(found.named_results())
        except (ClickHouseError, RuntimeError) as error:
            raise QueryRefused(f"The query was refused: {first_line(error)}") from error
        finally:
            handle.close()

    def read_only(self, sql: str, *, fmt: str) -> bytes:
        """The answer of a user's query as bytes, in one of ClickHouse's formats, without writing.

        Raises QueryRefused.
        """
        if self.is_embedded:
            return self.reader().ask(Question(sql=sql, default_format=fmt)).whole()
        try:
            handle = self._handle()
            answer: bytes = handle.raw_query(sql, settings=_without_writing(handle), fmt=fmt)
        except ClickHouseError as error:
            raise QueryRefused(f"The query was refused: {first_line(error)}") from error
        return answer

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
            handle = self._local.handle = clickhouse_connect.get_client(dsn=self._dsn)
            with self._lock:
                self._handles.append(handle)
        return handle


def _without_writing(handle: Any) -> dict[str, int]:
    """The setting that forbids writing; a ClickHouse that lets nobody change it, because it forbids it, takes none."""
    setting = handle.server_settings.get("readonly")
    is_forbidden = setting is not None and setting.readonly and str(setting.value) not in {"", "0"}
    return {} if is_forbidden else {"readonly": 1}


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
    """An error of ClickHouse in one line."""
    return " ".join(str(error).split())[:600]


def _remove_empty_statements(folder: Path) -> None:
    """A table that was created on a full disk has left an empty file in the place of its statement, and the engine does
    not open with one there. Whoever wanted the table creates it again."""
    if _holder(folder) is None:
        for path in folder.glob("store/*/*/*.sql"):
            if path.stat().st_size == 0:
                path.unlink()
