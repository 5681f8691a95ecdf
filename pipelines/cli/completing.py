"""What the shell completes besides commands and options: the names that the pipeline on the line declares."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..pipeline import Pipeline


def aggregates(context: typer.Context, incomplete: str) -> list[str]:
    """The pipeline's aggregates."""
    pipeline = _pipeline(context)
    return [] if pipeline is None else [name for name in pipeline.aggregates if name.startswith(incomplete)]


def tables(context: typer.Context, incomplete: str) -> list[str]:
    """What can be rebuilt: the aggregates, and the projections that are tables."""
    from ..targets import targets_of

    pipeline = _pipeline(context)
    return [] if pipeline is None else [name for name in targets_of(pipeline) if name.startswith(incomplete)]


def commands(context: typer.Context, incomplete: str) -> list[str]:
    """The aggregate's commands."""
    pipeline, aggregate = _pipeline(context), context.params.get("aggregate")
    if pipeline is None or aggregate not in pipeline.aggregates:
        return []
    return [name for name in pipeline.schema_of(aggregate).commands if name.startswith(incomplete)]


def errors(incomplete: str) -> list[str]:
    """The errors that `magnetar explain` knows."""
    from ..explanations import leaves

    return [name for name in leaves() if name.startswith(incomplete)]


def _pipeline(context: typer.Context) -> Pipeline | None:
    """What is on the line, if it can be loaded; whatever its module prints would be taken for names."""
    from ..loading import load_pipeline

    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        return load_pipeline(str(context.params["target"]))
    return None
