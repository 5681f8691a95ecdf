"""A user's own SQL, answered when the tables have what was written at a position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.freshness import behind, patiently, waiting
from magnetar.projections.query import QueryFormat, ask_endpoint, query, read_endpoint
from magnetar.projections.statement import is_passing
from magnetar.schemas import Position, QueryRefused, StoreUnavailable, TablesBehind


def answer_after(
    folder: Path,
    sql: str,
    fmt: QueryFormat,
    after: Sequence[str],
    *,
    wait_seconds: float,
    stale: bool,
    server: Endpoint | None = None,
) -> tuple[bytes, TablesBehind | None]:
    """The answer as bytes, and how far the tables were if a stale one was taken.

    While there is time, it asks whoever has the engine open, and never opens it: a projector that is being started
    again needs it. Only when the time is over, it looks itself. Raises TablesBehind, SettingsError for what is no
    position there, and what `query` raises.
    """
    positions = [Position(text) for text in after]
    for position in positions:
        position.parts()

    def attempt(is_last: bool) -> tuple[bytes, TablesBehind | None]:
        asked = query if is_last else _ask_who_runs

        def rows(text: str) -> list[dict[str, Any]]:
            return [json.loads(line) for line in asked(folder, text, QueryFormat.JSONL, server).splitlines()]

        late = behind(rows, positions)
        if late is not None and not (stale and is_last):
            raise late
        return asked(folder, sql, fmt, server), late

    return waiting(patiently(attempt, wait_seconds))


def _ask_who_runs(folder: Path, sql: str, fmt: QueryFormat, server: Endpoint | None) -> bytes:
    endpoint = server or read_endpoint(folder)
    if endpoint is None:
        raise StoreUnavailable("Nobody has ClickHouse open.")
    try:
        return ask_endpoint(endpoint, sql, fmt.clickhouse_format)
    except QueryRefused as error:
        if is_passing(error.what):
            raise StoreUnavailable(f"ClickHouse does not answer: {error.what}") from error
        raise
    except httpx.HTTPError as error:
        raise StoreUnavailable(f"ClickHouse does not answer: {error}.") from error
