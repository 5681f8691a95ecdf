"""A user's query: read-only, in this process or through the one that has the engine open."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import httpx
from magnetar.schemas import DataFolderError, QueryRefused

from .store import Store, embedded_dsn

ENDPOINT_FILE: Final = "query-endpoint.json"
"""Where the process that has the engine open says how to reach it; readable by its owner alone."""


class QueryFormat(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


_CLICKHOUSE: Final = {
    QueryFormat.TABLE: "PrettyCompactNoEscapes",
    QueryFormat.JSON: "JSON",
    QueryFormat.JSONL: "JSONEachRow",
    QueryFormat.CSV: "CSVWithNames",
}


class Endpoint(NamedTuple):
    """A running engine's loopback endpoint."""

    url: str
    token: str


def query(folder: Path, sql: str, fmt: QueryFormat) -> bytes:
    """Answer a query over a data folder.

    Raises QueryRefused, with ClickHouse's own words, for a query that is wrong or would change something, and
    DataFolderError if there is nothing to query.
    """
    if not (folder / "clickhouse").exists():
        raise DataFolderError(
            f"There is no ClickHouse data in {folder}.", cure="Run the pipeline first, or name its folder with --data."
        )
    endpoint = read_endpoint(folder)
    if endpoint is not None:
        try:
            return ask_endpoint(endpoint, sql, _CLICKHOUSE[fmt])
        except httpx.ConnectError:
            pass  # its process is gone without having tidied up
    store = Store(embedded_dsn(folder))
    try:
        return store.read_only(sql, fmt=_CLICKHOUSE[fmt])
    finally:
        store.close()


def ask_endpoint(endpoint: Endpoint, sql: str, clickhouse_format: str) -> bytes:
    """Send a query to a running engine. Raises QueryRefused, and httpx.ConnectError if nothing listens there."""
    response = httpx.post(
        endpoint.url,
        params={"default_format": clickhouse_format},
        content=sql.encode(),
        headers={"X-ClickHouse-Key": endpoint.token},
        timeout=httpx.Timeout(5.0, read=None),
    )
    if not response.is_success:
        raise QueryRefused(response.text.strip())
    return response.content


def read_endpoint(folder: Path) -> Endpoint | None:
    """How to reach the process that has the engine open, if one says that it has."""
    try:
        found = json.loads((folder / ENDPOINT_FILE).read_text())
        return Endpoint(found["url"], found["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
