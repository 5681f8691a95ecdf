"""How Magnetar logs: one event a line, ids and positions, never payloads."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

import structlog
from magnetar.schemas import SettingsError

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

LOG_STYLE: Final = "MAGNETAR_LOG_STYLE"
"""`people` or `json`, where standard error does not tell: `magnetar dev` shows the log of its parts itself."""


def configure_logging(level: str = "info", *, role: str | None = None) -> None:
    """Send the log to standard error: for people on a terminal, as JSON otherwise. Raises SettingsError."""
    if level not in _LEVELS:
        raise SettingsError(f"There is no log level {level!r}.", cure=f"Use one of {', '.join(_LEVELS)}.")
    style = os.environ.get(LOG_STYLE, "people" if sys.stderr.isatty() else "json")
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
        if style == "people"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    if role is not None:
        structlog.contextvars.bind_contextvars(process=role)
