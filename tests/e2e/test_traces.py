"""One trace over three processes: who asks, the worker and the projector of `magnetar dev`."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell, start_dev
from tests.e2e.test_quarantined import FOLD

SET_UP = """
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

exporter = ConsoleSpanExporter(
    out=open(f"{os.getpid()}.spans", "a"), formatter=lambda span: span.to_json(indent=None) + "\\n"
)
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
"""
WANTED = {"ask Order.Buy", "decide Order", "commit Order", "mirror Order", "project Basket"}


def spans(folder: Path) -> dict[str, tuple[str, Any]]:
    """By name, in which process a span was made, and what it says."""
    return {
        span["name"]: (file.stem, span)
        for file in folder.glob("*.spans")
        for span in (json.loads(line) for line in file.read_text().splitlines())
    }


def test_an_ask_is_one_trace_over_the_processes_that_have_a_part_in_it(shop: Shell) -> None:
    module = shop.folder / "shop.py"
    text = module.read_text()
    module.write_text(SET_UP + text[: text.index("shop = Pipeline")] + FOLD)
    start_dev(shop)
    ran = shop.run("ask", "shop", "Order", "42", "Buy", '{"sku": "tea", "pieces": 2}')
    assert ran.returncode == 0, ran.stderr
    shop.eventually(lambda: spans(shop.folder).keys() >= WANTED, "all of them have said what they did")
    found = {name: each for name, each in spans(shop.folder).items() if name in WANTED}
    assert len({span["context"]["trace_id"] for _, span in found.values()}) == 1
    asked = found["ask Order.Buy"][1]["context"]["span_id"]
    assert {span["parent_id"] for _, span in found.values()} == {None, asked}
    process = {name: where for name, (where, _) in found.items()}
    assert process["decide Order"] == process["commit Order"]
    assert process["mirror Order"] == process["project Basket"]
    assert len(set(process.values())) == 3
