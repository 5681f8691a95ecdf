"""Questions to an engine that another process has open, over HTTP, with Python's values in the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from magnetar.schemas import QueryRefused, StoreUnavailable

from .endpoint import Endpoint
from .statement import is_answer, is_passing
from .store import first_line


class Remote:
    """One endpoint. Safe to share between threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connects. Raises StoreUnavailable if nobody answers there."""
        try:
            self._client = clickhouse_connect.get_client(**endpoint.client_options)
        except ClickHouseError as error:
            raise _unavailable(error) from error

    def rows(self, sql: str, parameters: Mapping[str, object], formats: Mapping[str, str]) -> list[dict[str, Any]]:
        """The rows by column. Raises QueryRefused in ClickHouse's words, StoreUnavailable if nobody answers."""
        try:
            found = self._client.query(sql, parameters=dict(parameters), column_formats=dict(formats), tz_mode="aware")
            return list(found.named_results())
        except ClickHouseError as error:
            if _is_gone(error):
                raise _unavailable(error) from error
            raise QueryRefused(f"The query was refused: {first_line(error)}") from error

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _is_gone(error: ClickHouseError) -> bool:
    """Whether it is no answer of the engine's: the connection broke, or the engine is being closed, or has no time."""
    return is_passing(str(error)) if is_answer(str(error)) else isinstance(error, OperationalError)


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"ClickHouse does not answer: {first_line(error)}",
        cure="Try again; if it stays away, see whether the pipeline's projector runs.",
    )
