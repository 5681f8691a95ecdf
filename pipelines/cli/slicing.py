"""`rebuild --since --until`: a slice of history in scratch tables, and `--drop-scratch`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from magnetar.schemas import SettingsError

from .shared import EXIT_INTERRUPTED, numbered, opened, print_json, print_table

if TYPE_CHECKING:
    from magnetar.projections.scratch_rows import ScratchRows

    from ..pipeline import Pipeline
    from ..settings import Settings
    from ..slicing import Sliced


def slices(
    target: str, names: Sequence[str], since: str | None, until: str | None, *, data: Path | None, json: bool
) -> None:
    """Fill the scratch table of each projection that is named."""
    import msgspec

    from ..clock import SystemClock
    from ..loading import load_pipeline
    from ..logging import configure_logging
    from ..slicing import Wanted, check, sliced
    from .looking import moment

    _check_named(names)
    configure_logging("warning", role="rebuild")
    now = datetime.now(UTC)
    wanted = Wanted(*(None if each is None else moment(each, now) for each in (since, until)))
    declared = load_pipeline(target)
    for name in names:
        check(declared, name, wanted)
    pipeline, settings, log = opened(target, data)
    try:
        found = [
            sliced(
                pipeline, log, settings.data, SystemClock(), name, wanted, lambda rows: _keep(pipeline, settings, rows)
            )
            for name in names
        ]
    finally:
        log.close()
    if json:
        print_json([msgspec.to_builtins(each._asdict()) for each in found])
    else:
        for each in found:
            _say(each, target)


def drop_scratch(target: str, names: Sequence[str], *, data: Path | None) -> None:
    """Remove the scratch table of each projection that is named."""
    from magnetar.projections.declarations import view_name
    from magnetar.projections.scratch_rows import ScratchRows, scratch_table

    from ..loading import load_pipeline
    from ..logging import configure_logging
    from ..settings import load_settings
    from ..slicing import Wanted, check
    from ..targets import projection_of

    _check_named(names)
    configure_logging("warning", role="rebuild")
    pipeline, settings = load_pipeline(target), load_settings(data=data)
    for name in names:
        check(pipeline, name, Wanted(None, None))
    for view in (view_name(projection_of(pipeline, name)) for name in names):
        _keep(pipeline, settings, ScratchRows(view))
        typer.echo(f"{scratch_table(pipeline.name, view)} is gone.")


def _check_named(names: Sequence[str]) -> None:
    if not names:
        raise SettingsError(
            "A scratch table is of a projection.", cure="Name one or more that are tables, behind the module."
        )


def _keep(pipeline: Pipeline, settings: Settings, rows: ScratchRows) -> None:
    from ..carrying_out import CarryingOut
    from ..clock import SystemClock
    from ..runtime import StopSignal
    from ..slicing import KeepingScratch

    if not CarryingOut(pipeline, settings, KeepingScratch(pipeline, rows), SystemClock()).run(StopSignal()):
        typer.echo("magnetar: not done; nothing was changed.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)


def _say(found: Sliced, target: str) -> None:
    if found.refused:
        rows = [(each.event, each.error, each.aggregates, ", ".join(each.examples)) for each in found.refused]
        print_table(("event that it raises on", "error", "aggregates", "for example"), rows)
    typer.echo(
        f"{found.projection}: {numbered(found.rows, 'row')} in {found.table}, beside those that are "
        f"shown; magnetar rebuild {target} {found.projection} --drop-scratch removes them."
    )
