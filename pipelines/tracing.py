"""Traces: the spans of a command's way, for who has set up OpenTelemetry. Who has not pays nothing.

The context travels in the command's metadata, as `traceparent` (w3.org/TR/trace-context), and its commit repeats them:
so worker and projector find it in the message itself, and so does other teams' code, in any language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from magnetar.aggregates import Decision
from magnetar.schemas import Undecodable, wire_name
from magnetar.schemas.command_message import read_envelope
from magnetar.schemas.commit import read_head, read_time
from magnetar.schemas.framing import write_long, write_string

from .log import Message
from .receipt import Receipt

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Tracer

    from .outgoing import Details

TRACEPARENT: Final = "traceparent"

SPANS_MAX: Final = 100
"""Spans of one range at most: a backlog of 50,000 traced commits must not become 50,000 spans at once."""

_VALUE_LENGTH: Final = 55
_MARK: Final = write_string(TRACEPARENT) + write_long(_VALUE_LENGTH) + b"00-"
"""What the context begins with in the bytes of a command or a commit. To find it costs a hundredth of decoding them."""

_FLAGS_AT: Final = len(_MARK) - len(b"00-") + _VALUE_LENGTH - 1
_ODD: Final = b"13579bdf"
_NS_PER_MS: Final = 1_000_000
F = TypeVar("F", bound="Future[Any]")


def tracing() -> Tracing | None:
    """How this process traces; None if OpenTelemetry is not installed, or nobody has set it up before."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else Tracing(provider.get_tracer("magnetar"))


def is_recorded(payload: bytes) -> bool:
    """Whether a message belongs to a trace that somebody records."""
    at = payload.find(_MARK)
    return at >= 0 and at + _FLAGS_AT < len(payload) and payload[at + _FLAGS_AT] in _ODD


def trace_id_of(payload: bytes) -> str | None:
    """The id of the trace that a command message belongs to, for the log. It does not need OpenTelemetry."""
    traceparent = _metadata_of(payload).get(TRACEPARENT, "")
    return traceparent.split("-")[1] if traceparent.count("-") == 3 else None


class Times(NamedTuple):
    """When a chunk was begun, was decided, and was stored: nanoseconds since 1970."""

    begun: int
    decided: int
    stored: int

    @classmethod
    def until(cls, stored_ms: int, decide_seconds: float, flush_seconds: float) -> Times:
        """From its end, and how long its parts took."""
        stored = stored_ms * _NS_PER_MS
        decided = stored - int(flush_seconds * 1e9)
        return cls(decided - int(decide_seconds * 1e9), decided, stored)


class Tracing:
    """Makes spans, and carries their context in metadata."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._kind: type[SpanKind] = SpanKind
        self._carrier = TraceContextTextMapPropagator()

    def follow(
        self,
        doing: str,
        context: str,
        aggregate: type[Any],
        command: Any,
        details: Details,
        go: Callable[[Details], tuple[str, F]],
    ) -> tuple[str, F]:
        """Do something with a command, `ask` or `send`, within a span that lasts until its future is done.

        It is a child of the span that is current here or, if none is, of the one that the metadata name.
        """
        name = f"{doing} {wire_name(aggregate)}.{wire_name(type(command))}"
        metadata = dict(details.metadata or {})
        attributes = {"magnetar.context": context, "magnetar.aggregate": wire_name(aggregate)}
        span = self._tracer.start_span(name, self._parent(metadata), kind=self._kind.PRODUCER, attributes=attributes)
        self._inject(span, metadata)
        try:
            command_id, future = go(details._replace(metadata=metadata))
        except BaseException as error:
            _fail(span, error)
            span.end()
            raise
        span.set_attribute("magnetar.command_id", command_id)
        future.add_done_callback(lambda done: _finish(span, done))
        return command_id, future

    def _parent(self, metadata: Mapping[str, str]) -> Context | None:
        from opentelemetry import trace

        if TRACEPARENT in metadata and not trace.get_current_span().get_span_context().is_valid:
            return self.carried(metadata)
        return None

    def _inject(self, span: Span, metadata: dict[str, str]) -> None:
        from opentelemetry.trace import set_span_in_context

        self._carrier.inject(metadata, set_span_in_context(span))

    def decided(
        self, where: Mapping[str, str | int], messages: Sequence[Message], decisions: Iterable[Decision], times: Times
    ) -> None:
        """A chunk is stored: of each command in it that is traced, how long deciding and storing took."""
        recorded = [is_recorded(message.payload) for message in messages]
        if not any(recorded):
            return
        for message, decision in compress(zip(messages, decisions, strict=True), recorded):
            parent = self.carried(_metadata_of(message.payload))
            attributes = {
                **where,
                "magnetar.command_id": decision.command_id or "",
                "magnetar.outcome": decision.outcome,
            }
            if decision.number is not None:
                attributes["magnetar.number"] = decision.number
            aggregate = where["magnetar.aggregate"]
            self.span(f"decide {aggregate}", parent, times.begun, times.decided, attributes)
            if decision.commit is not None:
                self.span(f"commit {aggregate}", parent, times.decided, times.stored, attributes)

    def carried(self, metadata: Mapping[str, str]) -> Context:
        """The context that the metadata of a message name."""
        return self._carrier.extract(metadata)

    def span(
        self, name: str, parent: Context, begun_ns: int, ended_ns: int, attributes: Mapping[str, str | int]
    ) -> None:
        """Make a span of what is over."""
        span = self._tracer.start_span(
            name, parent, kind=self._kind.CONSUMER, attributes=attributes, start_time=begun_ns
        )
        span.end(ended_ns)


class TableTraces:
    """The spans of one table: from when a traced commit was read to when it was in the table."""

    def __init__(self, tracing: Tracing, name: str, where: Mapping[str, str | int]) -> None:
        """`name` is the spans'."""
        self._tracing = tracing
        self._name = name
        self._where = where
        self._read: dict[int, list[tuple[int, int, Context]]] = {}
        """By partition, what was read and is not in the table: when, the commit's number, and its context."""

    def read(self, partition: int, payloads: Iterable[bytes], now_ms: int) -> None:
        """A range has been read."""
        found = self._read.setdefault(partition, [])
        for payload in payloads:
            if is_recorded(payload) and len(found) < SPANS_MAX:
                with suppress(Undecodable):  # the loop says so itself
                    context = self._tracing.carried(read_time(payload)[1])
                    found.append((now_ms * _NS_PER_MS, read_head(payload)[0], context))

    def inserted(self, partition: int, now_ms: int) -> None:
        """It is in the table."""
        for read_ns, number, context in self._read.pop(partition, ()):
            attributes = {**self._where, "magnetar.partition": partition, "magnetar.number": number}
            self._tracing.span(self._name, context, read_ns, max(read_ns, now_ms * _NS_PER_MS), attributes)


def _metadata_of(payload: bytes) -> dict[str, str]:
    try:
        return read_envelope(payload)[0].metadata
    except (IndexError, UnicodeDecodeError, Undecodable):  # it is parked for that
        return {}


def _finish(span: Span, done: Future[Any]) -> None:
    if done.cancelled():
        span.set_attribute("magnetar.given_up", True)
    elif (error := done.exception()) is not None:
        _fail(span, error)
    elif isinstance(receipt := done.result(), Receipt):
        _, _, partition, number = receipt.position.parts()
        span.set_attributes({"magnetar.partition": partition, "magnetar.number": number})
    span.end()


def _fail(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import StatusCode

    span.record_exception(error)
    span.set_status(StatusCode.ERROR, type(error).__name__)
