"""What becomes of a command, as OpenTelemetry sees it: spans of one trace, from the asker to the tables."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from magnetar.pipelines import CommandParked, Pipeline, tracing
from magnetar.pipelines.logging import configure_logging
from magnetar.pipelines.projector_process import run_projector
from magnetar.projections import Rows
from magnetar.schemas import Meta
from magnetar.schemas.framing import write_map
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler

from tests.unit.pipelines.purses import Door, Paid, Pay, Place, Purse, purses
from tests.unit.pipelines.test_rebuild import run


class Payment(Rows):
    total: int

    @classmethod
    def project(cls, event: Paid, meta: Meta) -> Iterator["Payment"]:
        yield cls(event.total)


projected = Pipeline("purses", aggregates=[Purse, Door], projections=[Payment], partitions=purses.partitions)


def set_up(monkeypatch: pytest.MonkeyPatch, sampler: Sampler | None = None) -> InMemorySpanExporter:
    """OpenTelemetry as an application sets it up, for this test alone."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    return set_up(monkeypatch)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[], list[Any]]]:
    """What is logged from here on, as a process does it."""
    error = StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    configure_logging()
    yield lambda: [json.loads(line) for line in error.getvalue().splitlines()]
    structlog.reset_defaults()


@contextmanager
def projecting(place: Place) -> Generator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run_projector, args=(projected, place.settings), kwargs={"stopped": stop.is_set})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def names(spans: tuple[ReadableSpan, ...]) -> set[str]:
    return {span.name for span in spans}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask_one_trace(folder: Path) -> None:
    """In this process an asker, a worker and a projector, whose engine no other test may have open here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        exporter = set_up(monkeypatch)
        check_one_trace(Place(folder), exporter)


def test_an_ask_is_one_trace_from_the_asker_to_the_tables(tmp_path: Path) -> None:
    script = "from pathlib import Path; from tests.unit.pipelines.test_tracing import ask_one_trace; "
    run(f"{script}ask_one_trace(Path(sys.argv[1]))", tmp_path)


def check_one_trace(place: Place, exporter: InMemorySpanExporter) -> None:
    wanted = {"click", "ask Purse.Pay", "decide Purse", "commit Purse", "mirror Purse", "project Payment"}
    with place.working(), projecting(place), place.client() as client:
        with trace.get_tracer("shop").start_as_current_span("click") as click:
            receipt = client.ask(Purse, "a", Pay(1))
        eventually(lambda: names(exporter.get_finished_spans()) >= wanted)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == wanted
    assert {span.context.trace_id for span in spans.values() if span.context} == {click.get_span_context().trace_id}
    ask = spans["ask Purse.Pay"]
    assert ask.parent is not None
    assert ask.parent.span_id == click.get_span_context().span_id
    for name in wanted - {"click", "ask Purse.Pay"}:
        parent, attributes = spans[name].parent, spans[name].attributes or {}
        assert ask.context is not None
        assert parent is not None
        assert parent.span_id == ask.context.span_id, name
        assert attributes["magnetar.context"] == "purses"
        assert (attributes["magnetar.partition"], attributes["magnetar.number"]) == receipt.position.parts()[2:]
    begun = [spans[name].start_time or 0 for name in ("ask Purse.Pay", "decide Purse", "commit Purse", "mirror Purse")]
    assert begun[1] <= begun[2] <= begun[3] + 1_000_000_000  # two clocks: of the worker's thread, and the projector's
    assert all((span.end_time or 0) >= (span.start_time or 0) for span in spans.values())
    assert (spans["decide Purse"].attributes or {})["magnetar.outcome"] == "accepted"


def test_the_context_stands_in_the_commit_for_whoever_reads_it(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    place = Place(tmp_path)
    with place.working(), place.client() as client:
        client.ask(Purse, "a", Pay(1), metadata={"shop": "berlin"})
    (ask,) = (span for span in exporter.get_finished_spans() if span.name == "ask Purse.Pay")
    (commit,) = place.commits()
    assert ask.context is not None
    assert commit.metadata.keys() == {"shop", "traceparent"}
    assert commit.metadata["traceparent"][:-2] == f"00-{ask.context.trace_id:032x}-{ask.context.span_id:016x}-"


def test_a_context_that_a_sender_has_put_into_the_metadata_is_gone_on_from(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    place, given = Place(tmp_path), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with place.client() as client:
        client.send(Purse, "a", Pay(1), metadata={"traceparent": given})
    (sent,) = exporter.get_finished_spans()
    assert sent.name == "send Purse.Pay"
    assert sent.parent is not None
    assert (f"{sent.parent.trace_id:032x}", f"{sent.parent.span_id:016x}") == tuple(given.split("-")[1:3])


def test_the_asynchronous_client_takes_the_span_of_its_task(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    place = Place(tmp_path)

    async def asks() -> int:
        client = place.async_client()
        with trace.get_tracer("shop").start_as_current_span("click") as click:
            await client.ask(Purse, "a", Pay(1))
        await client.close()
        return click.get_span_context().span_id

    with place.working():
        clicked = asyncio.run(asks())
    (ask,) = (span for span in exporter.get_finished_spans() if span.name == "ask Purse.Pay")
    assert ask.parent is not None
    assert ask.parent.span_id == clicked


def test_a_parked_command_is_a_failed_ask_and_its_log_line_names_the_trace(
    tmp_path: Path, exporter: InMemorySpanExporter, logged: Callable[[], list[Any]]
) -> None:
    place = Place(tmp_path)
    with place.working(), place.client() as client, pytest.raises(CommandParked):
        client.ask(Purse, "a", Pay(13))
    (ask,) = (span for span in exporter.get_finished_spans() if span.name == "ask Purse.Pay")
    assert ask.status.status_code is trace.StatusCode.ERROR
    (line,) = (line for line in logged() if line["event"] == "command parked")
    assert ask.context is not None
    assert line["trace_id"] == f"{ask.context.trace_id:032x}"
    assert line["command_id"] == (ask.attributes or {})["magnetar.command_id"]


def test_a_line_that_is_logged_within_a_span_names_it(
    exporter: InMemorySpanExporter, logged: Callable[[], list[Any]]
) -> None:
    with trace.get_tracer("shop").start_as_current_span("click") as click:
        structlog.get_logger("x").info("inside")
    structlog.get_logger("x").info("outside")
    inside, outside = logged()
    assert inside["trace_id"] == f"{click.get_span_context().trace_id:032x}"
    assert inside["span_id"] == f"{click.get_span_context().span_id:016x}"
    assert "trace_id" not in outside


def test_what_nobody_records_costs_no_spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = set_up(monkeypatch, ALWAYS_OFF)
    place = Place(tmp_path)
    with place.working(), place.client() as client:
        client.ask(Purse, "a", Pay(1))
    assert exporter.get_finished_spans() == ()


def test_nothing_is_traced_where_nobody_has_set_it_up(tmp_path: Path) -> None:
    assert tracing.tracing() is None
    place = Place(tmp_path)
    with place.working(), place.client() as client:
        client.ask(Purse, "a", Pay(1))
    assert place.commits()[0].metadata == {}


def test_opentelemetry_need_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing.tracing() is None


@pytest.mark.parametrize(
    ("flags", "recorded"), [("01", True), ("00", False), ("03", True), ("0a", False), ("0b", True)]
)
def test_a_message_says_whether_its_trace_is_recorded(flags: str, recorded: bool) -> None:
    traceparent = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
    payload = b"before" + write_map({"shop": "berlin", "traceparent": traceparent}) + b"behind"
    assert tracing.is_recorded(payload) is recorded


def test_what_is_cut_off_within_the_context_is_not_recorded() -> None:
    assert not tracing.is_recorded(
        write_map({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})[:40]
    )
    assert not tracing.is_recorded(b"")
