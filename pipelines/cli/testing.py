"""`transitions`: what the tests have shown of an aggregate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import AggregateName, AsJson, Target, print_json


def transitions(
    target: Target,
    aggregate: AggregateName,
    tests: Annotated[list[Path] | None, typer.Option(help="Where the tests are, if not where pytest looks.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="What a run with MAGNETAR_EVIDENCE=FILE has written.")] = None,
    json: AsJson = False,
) -> None:
    """Run the tests, and list which commands each kind of state takes and which it rejects, as they have shown.

    **Example:** `magnetar transitions shop.pipeline Order --tests tests/test_order.py`
    """
    from .. import transitions as found
    from ..loading import load_pipeline

    pipeline = load_pipeline(target)
    pipeline.schema_of(aggregate)
    shown = found.read_evidence(evidence) if evidence else found.gather(tests or [])
    table = found.transitions(pipeline.aggregates[aggregate], shown)
    if json:
        print_json(found.as_json(table))
    else:
        found.show(table)
