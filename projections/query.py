"""A user's query: read-only, in this process or through the one that has the engine open."""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Final

import httpx
from magnetar.schemas import DataFolderError, QueryRefused, StoreUnavailable

from .endpoint import Endpoint
from .legible import LEGIBLE_TABLE, legible
from .statement import is_passing
from .store import Store, embedded_dsn
from .supervised import is_supervised

ENDPOINT_FILE: Final = "query-endpoint.json"
"""Where the process that has the engine open says how to reach it; readable by its owner alone."""

PORT_FILE: Final = "query-port"
"""The port of the last time, which is taken again if it is free: what was set up with it goes on after a restart."""

CREDENTIAL_FILE: Final = "query-token"
"""The token alone; it stays when the process has ended."""


STARTING_SECONDS: Final = 10.0
"""How long a query waits for a process that has the engine open, or is about to open it, and does not answer yet."""

SUPERVISED_SECONDS: Final = 30.0
"""How long, while a `magnetar dev` lives: behind a save it starts its projector anew, which loads the code and opens
the engine, and on a machine that is busy takes as long."""

LOOK_SECONDS: Final = 0.1
"""How often it looks meanwhile. A process that has begun to answer says so in a file, and nothing wakes who waits."""


class QueryFormat(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    ARROW = "arrow"

    @property
    def clickhouse_format(self) -> str:
        """ClickHouse's name for it."""
        return _CLICKHOUSE[self]


_CLICKHOUSE: Final = {
    QueryFormat.TABLE: LEGIBLE_TABLE,
    QueryFormat.JSON: "JSON",
    QueryFormat.JSONL: "JSONEachRow",
    QueryFormat.CSV: "CSVWithNames",
    QueryFormat.ARROW: "Arrow",
}


def query(folder: Path, sql: str, fmt: QueryFormat, server: Endpoint | None = None) -> bytes:
    """Answer a query over a data folder, or a server. Raises what `answer` raises."""
    return answer(folder, sql, fmt.clickhouse_format, server)


def answer(folder: Path, sql: str, clickhouse_format: str, server: Endpoint | None = None) -> bytes:
    """Answer a query in one of ClickHouse's formats. Raises what `Answers.answer` raises."""
    with closing(Answers(folder, server)) as answers:
        return answers.answer(sql, clickhouse_format)


class Answers:
    """Answers queries over a data folder: through whoever has the engine open or, where nobody has, in this process.

    It is then open until `close`: opening takes most of a second, and a projector that starts waits meanwhile. Where
    the tables are on a server, it is asked.
    """

    def __init__(self, folder: Path, server: Endpoint | None = None) -> None:
        self._folder = folder
        self._server = server
        self._store: Store | None = None

    def close(self) -> None:
        """Close the engine, if it is open here."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def answer(self, sql: str, clickhouse_format: str) -> bytes:
        """Answer a query, in one of ClickHouse's formats.

        Raises QueryRefused, with ClickHouse's own words, for a query that is wrong or would change something, and
        DataFolderError if there is nothing to query, or StoreUnavailable if the server does not answer.
        """
        _check_asked(sql)
        if self._server is not None:
            return _of_server(self._server, sql, clickhouse_format)
        _check(self._folder)
        began = time.monotonic()
        deadline = began + STARTING_SECONDS
        while True:
            try:
                return self._answer(sql, clickhouse_format)
            except DataFolderError:  # it is open elsewhere: in a process that starts, or for another query
                if time.monotonic() > deadline:
                    raise
            except QueryRefused as error:
                if not is_passing(error.what) or time.monotonic() > deadline:
                    raise
            except _NotYet as error:
                if time.monotonic() > began + SUPERVISED_SECONDS:
                    raise StoreUnavailable(
                        "`magnetar dev` runs on this data folder, and its projector does not answer.",
                        cure="Is it just being started anew? Try again. Otherwise look at what `magnetar dev` prints.",
                    ) from error
            time.sleep(LOOK_SECONDS)  # another process has the engine, and the engine has no way to wait for it

    def _answer(self, sql: str, clickhouse_format: str) -> bytes:
        if self._store is None and (answered := _through_another(self._folder, sql, clickhouse_format)) is not None:
            return answered
        if self._store is None:
            if is_supervised(self._folder):  # its projector is started again: were the engine open here, it could not
                raise _NotYet
            self._store = Store(embedded_dsn(self._folder))
        return self._store.read_only(sql, fmt=clickhouse_format)


def _check_asked(sql: str) -> None:
    if not sql.strip():
        raise QueryRefused("The query is empty.", cure='It is a SELECT: "SELECT count() FROM shop.commits".')


def _check(folder: Path) -> None:
    """Raise DataFolderError if there is nothing to query."""
    if not (folder / "clickhouse").exists():
        raise DataFolderError(
            f"There is no ClickHouse data in {folder}.", cure="Run the pipeline first, or name its folder with --data."
        )
    if not os.access(folder / "clickhouse", os.W_OK):  # ClickHouse writes to its folder also when it only reads
        raise DataFolderError(f"The data folder {folder} is read-only.", cure="Make it writable.")


class _NotYet(Exception):
    """Somebody is about to open the engine, and must not be kept from it."""


def _through_another(folder: Path, sql: str, clickhouse_format: str) -> bytes | None:
    """The answer of the process that has the engine open; None if there is none."""
    endpoint = read_endpoint(folder)
    if endpoint is None:
        return None
    if _is_stopped(endpoint.pid):
        raise StoreUnavailable(
            f"Process {endpoint.pid} has ClickHouse open, and is stopped: it would never answer.",
            cure=f"Let it go on: kill -CONT {endpoint.pid}; or end it: kill -9 {endpoint.pid}.",
        )
    try:
        return ask_endpoint(endpoint, sql, clickhouse_format)
    except httpx.ConnectError:
        return None  # its process is gone without having tidied up
    except httpx.TransportError as error:
        raise StoreUnavailable(
            f"ClickHouse's process ended while it answered: {error}.",
            cure="Ask again: a query changes nothing. If it ends each time, look at what `magnetar dev` prints.",
        ) from error


def _of_server(server: Endpoint, sql: str, clickhouse_format: str) -> bytes:
    try:
        return ask_endpoint(server, sql, clickhouse_format)
    except httpx.HTTPError as error:
        raise StoreUnavailable(
            f"ClickHouse at {server.url} does not answer: {error}.",
            cure="Is MAGNETAR_CLICKHOUSE right, and does it run? Ask again then.",
        ) from error


def ask_endpoint(endpoint: Endpoint, sql: str, clickhouse_format: str) -> bytes:
    """Send a query. Raises QueryRefused, and httpx.ConnectError if nothing listens there.

    A server writes nothing for a GET, whatever the user may do (ClickHouse's documentation, "HTTP interface").
    """
    headers = {"X-ClickHouse-User": endpoint.user, "X-ClickHouse-Key": endpoint.token}
    params = {"default_format": clickhouse_format}
    timeout = httpx.Timeout(5.0, read=None)
    if endpoint.is_server:
        params["query"] = sql
        response = httpx.get(endpoint.url, params=params, headers=headers, timeout=timeout, verify=endpoint.verifying)
    else:
        response = httpx.post(endpoint.url, params=params, content=sql.encode(), headers=headers, timeout=timeout)
    if not response.is_success:
        raise QueryRefused(response.text.strip(), code=int(response.headers.get("X-ClickHouse-Exception-Code", 0)))
    return legible(response.content, response.headers.get("X-ClickHouse-Format", ""))


def read_endpoint(folder: Path) -> Endpoint | None:
    """How to reach the process that has the engine open, if one says that it has."""
    try:
        found = json.loads((folder / ENDPOINT_FILE).read_text())
        return Endpoint(str(found["url"]), str(found["token"]), int(found["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_stopped(pid: int) -> bool:
    """Whether Linux says that the process is stopped, as by SIGSTOP or Ctrl-Z."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False


def publish(folder: Path, endpoint: Endpoint) -> None:
    """Say how to reach this process, to who may read the data folder's owner's files."""
    making = folder / f"{ENDPOINT_FILE}.{os.getpid()}"
    _write_secret(making, json.dumps({"url": endpoint.url, "token": endpoint.token, "pid": os.getpid()}))
    making.replace(folder / ENDPOINT_FILE)


def token_of(folder: Path) -> str:
    """The token that the endpoint asks for: made once, so that what was set up with it goes on after a restart."""
    file = folder / CREDENTIAL_FILE
    try:
        token = file.read_text().strip()
    except FileNotFoundError:
        token = ""
    if len(token) < 32:
        token = secrets.token_urlsafe(32)
        _write_secret(file, token)
    file.chmod(0o600)
    return token


def _write_secret(file: Path, text: str) -> None:
    """Write a file that nobody else could read at any time."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text)
