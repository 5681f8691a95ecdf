"""How Magnetar logs: one event a line, ids and positions, never payloads."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

import structlog
from magnetar.schemas import SettingsError

from .chart_settings import in_chart

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
            _with_trace,
            _with_chart_values,
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


def _with_trace(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Name the span that a line is logged in, if OpenTelemetry is in use here."""
    trace = sys.modules.get("opentelemetry.trace")
    if (
        trace is not None
        and "trace_id" not in event
        and (found := trace.get_current_span().get_span_context()).is_valid
    ):
        event["trace_id"], event["span_id"] = f"{found.trace_id:032x}", f"{found.span_id:016x}"
    return event


def _with_chart_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """In a pod of the chart, say which of its values the settings come from that a line names."""
    if in_values := in_chart(f"{event.get('what', '')} {event.get('cure', '')}"):
        event["chart_values"] = in_values
    return event
