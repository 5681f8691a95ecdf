"""What a request says of positions: the answer shows all up to there, whoever writes the tables meanwhile."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Final, NamedTuple

from magnetar.schemas import Position, SettingsError, TablesBehind
from starlette.requests import Request

from .engine_reader import EngineReader, Question
from .freshness import WAIT_SECONDS, behind, patiently
from .statement import clickhouse_error

AFTER: Final = "X-Magnetar-After"
"""One position or several, parted by commas."""

WAIT: Final = "X-Magnetar-Wait"
"""How many seconds to wait for the tables; 0 looks once."""

STALE: Final = "X-Magnetar-Stale"
"""In a request, `1`: when the wait is over, answer from what is there. In the answer: how far that is, as JSON."""

WAIT_SECONDS_MAX: Final = 300.0


class After(NamedTuple):
    """What the tables have to have before a question is answered."""

    positions: tuple[Position, ...]
    wait_seconds: float
    stale: bool

    @classmethod
    def of(cls, request: Request) -> After:
        """What the headers say. Raises QueryRefused for what means nothing."""
        texts = [text.strip() for text in request.headers.get(AFTER, "").split(",")]
        positions = tuple(Position(text) for text in texts if text)
        try:
            for position in positions:
                position.parts()
            wait_seconds = float(request.headers.get(WAIT, WAIT_SECONDS))
        except (SettingsError, ValueError) as error:
            raise clickhouse_error("BAD_ARGUMENTS", f"{AFTER} or {WAIT}: {error}") from error
        # A number that is none is no wait at all.
        wait_seconds = min(wait_seconds, WAIT_SECONDS_MAX) if wait_seconds > 0 else 0.0
        return cls(positions, wait_seconds, request.headers.get(STALE, "0") not in {"", "0", "false"})

    def attempts(self, reader: EngineReader) -> Generator[float, None, dict[str, str]]:
        """Look until the tables have it; comes to the headers of the answer.

        Raises QueryRefused in the manner of ClickHouse's own errors when the time is over.
        """

        def ask(sql: str) -> list[dict[str, Any]]:
            answer = reader.ask(Question(sql=sql, default_format="JSONEachRow")).whole()
            return [json.loads(line) for line in answer.splitlines()]

        def attempt(is_last: bool) -> dict[str, str]:
            late = behind(ask, self.positions)
            if late is None:
                return {}
            if is_last and self.stale:
                return {STALE: json.dumps(late.fields)}
            raise late

        try:
            return (yield from patiently(attempt, self.wait_seconds))
        except TablesBehind as error:
            raise clickhouse_error("TIMEOUT_EXCEEDED", str(error)) from error
        except SettingsError as error:
            raise clickhouse_error("BAD_ARGUMENTS", str(error)) from error
