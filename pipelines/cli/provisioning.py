"""The commands `plan`, `provision` and `doctor`: what a pipeline needs, and whether it stands on safe ground."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from .shared import EXIT_WORLD, EXIT_YOURS, AsJson, Data, Target, print_json

if TYPE_CHECKING:
    from ..log import Log
    from ..pipeline import Pipeline
    from ..preflight import Finding
    from ..provisioning import Step
    from ..settings import Settings


_LOOKS_MAX: Final = 3
"""So often it is looked whether the views are right; to be wrong twice, a projector would swap twice in a second."""


def plan(target: Target, data: Data = None, json: AsJson = False) -> None:
    """Show what `provision` would do: `+` is made, `~` changed, `=` left because it is stricter, `!` refused.

    Reads only. The projections are tried on an empty ClickHouse first. Databases, tables and views are listed where
    they are on a server (MAGNETAR_CLICKHOUSE); an embedded engine's are made by the projector when it starts. Exits
    with 2 if something is refused.

    **Example:** `magnetar plan shop.pipeline`
    """
    from ..provisioning import Sign, plan
    from ..trial import try_tables

    with _opened(target, data, if_missing="empty") as (pipeline, log, settings):
        try_tables(pipeline)
        with _planning_tables(pipeline, log, settings) as tables:
            steps = [*plan(pipeline, log, settings), *tables()]
    _print_steps(steps, json)
    if any(step.sign is Sign.REFUSED for step in steps):
        raise typer.Exit(EXIT_YOURS)


ChartValues = Annotated[str | None, typer.Option(hidden=True, envvar="MAGNETAR_CHART_VALUES")]
"""What a release's values say of the pipeline, which the chart tells its Job."""


def provision(target: Target, data: Data = None, json: AsJson = False, chart_values: ChartValues = None) -> None:
    """Do what `plan` shows: make topics, policies, schemas, rights; on a ClickHouse server databases, tables, views.

    Repeatable; deletes and shrinks nothing.

    **Example:** `magnetar provision shop.pipeline`
    """
    from ..chart import check_values
    from ..provisioning import apply, plan

    done = _say_nothing if json else typer.echo
    with (
        _opened(target, data, if_missing="make") as (pipeline, log, settings),
        _planning_tables(pipeline, log, settings) as tables,
    ):
        if chart_values is not None:
            check_values(pipeline, target, settings.tenant, chart_values)
        steps = [*plan(pipeline, log, settings), *tables()]
        apply(steps, done=done)
        # A projector may have shown another generation since it was looked which one is: the views are looked at again.
        for _ in range(_LOOKS_MAX):
            again = [step for step in tables() if step.do is not None]
            apply(again, done=done)
            if not again:
                break
    if json:
        _print_steps(steps, json)
        return
    typer.echo("Nothing is left to do." if steps else "Nothing was to be done.")


def _say_nothing(_: object) -> None:
    """What is printed as JSON is printed at the end."""


def doctor(target: Target, data: Data = None, json: AsJson = False) -> None:
    """Look for settings that would lose the log, spoil it or hold it up, and say what mends them.

    Exits with 3 if something is dangerous: no worker would start.

    **Example:** `magnetar doctor shop.pipeline`
    """
    from ..preflight import Severity, examine, examine_read, examine_rights
    from ..provisioning import roles_of

    with _opened(target, data, if_missing="refuse") as (pipeline, log, settings):
        findings = [
            *examine(pipeline, log),
            *examine_read(pipeline, log),
            *examine_rights(pipeline, log, roles_of(settings)),
            *_engine_findings(pipeline, settings),
        ]
    if json:
        print_json([finding.as_json() for finding in findings])
    else:
        _print_findings(findings)
    if any(finding.severity is Severity.DANGEROUS for finding in findings):
        raise typer.Exit(EXIT_WORLD)


@contextmanager
def _opened(
    target: str, data: Path | None, *, if_missing: Literal["make", "refuse", "empty"]
) -> Generator[tuple[Pipeline, Log, Settings]]:
    """With `empty`, an embedded log that is not there counts as an empty one, and is not made."""
    import tempfile

    from ..clock import SystemClock
    from ..loading import load_pipeline
    from ..settings import EMBEDDED, load_settings, open_log

    pipeline, settings = load_pipeline(target), load_settings(data=data)
    with ExitStack() as closing:
        if if_missing == "empty" and settings.broker == EMBEDDED and not settings.data.exists():
            nothing = closing.enter_context(tempfile.TemporaryDirectory(prefix="magnetar-"))
            settings, if_missing = settings.model_copy(update={"data": Path(nothing)}), "make"
        log = open_log(settings, SystemClock(), make=if_missing == "make")
        closing.callback(log.close)
        yield pipeline, log, settings


@contextmanager
def _planning_tables(pipeline: Pipeline, log: Log, settings: Settings) -> Generator[Callable[[], list[Step]]]:
    """What finds the steps of the tables: none where the engine is embedded, which the projector's process owns."""
    from ..clock import SystemClock

    if (server := settings.server()) is None:
        yield list
        return
    from ..planned_tables import PlanningStore, plan_tables

    store = PlanningStore(server)
    try:
        yield lambda: plan_tables(pipeline, log, store, settings, clock=SystemClock())
    finally:
        store.close()


def _engine_findings(pipeline: Pipeline, settings: Settings) -> list[Finding]:
    """What is wrong with the ClickHouse server, if there is one; else whether the engine runs here: tried, in a folder
    of its own, since a projector may have the real one. With a Pulsar, it may be meant to run elsewhere alone."""
    import tempfile
    from importlib.util import find_spec

    from magnetar.projections.store import Store, embedded_dsn
    from magnetar.schemas import MagnetarError

    from ..clock import SystemClock
    from ..preflight import Finding, Severity
    from ..server_preflight import examine_engine, examine_server
    from ..settings import EMBEDDED

    if (server := settings.server()) is not None:
        return examine_server(pipeline, server, SystemClock())
    if settings.broker != EMBEDDED and find_spec("chdb") is None:
        return []
    try:
        with tempfile.TemporaryDirectory() as folder, closing(Store(embedded_dsn(Path(folder)))) as store:
            store.command("CREATE DATABASE magnetar")
            return examine_engine(store)
    except MagnetarError as error:
        return [
            Finding(
                Severity.DANGEROUS, "ClickHouse", "embedded engine", error.what, "usable",
                "there are no tables to query; commands are decided all the same", error.cure,
            )
        ]  # fmt: skip


def _print_steps(steps: Sequence[Step], as_json: bool) -> None:
    if as_json:
        print_json([step.as_json() for step in steps])
        return
    for step in steps:
        typer.echo(step)
    typer.echo(f"{len(steps)} steps." if steps else "Nothing is to be done.")


def _print_findings(findings: Sequence[Finding]) -> None:
    from ..preflight import MISSING, Severity

    for finding in findings:
        should = "better" if finding.severity is Severity.NOTE else "must be"
        typer.echo(
            f"{finding.severity.value:<10} {finding.subject}: {finding.check} is {finding.found}, "
            f"{should} {finding.wanted}\n           otherwise {finding.lost}\n           mend: {finding.mend}"
        )
    counts = {severity: sum(f.severity is severity for f in findings) for severity in Severity}
    dangerous, warnings, notes = counts.values()
    is_whole = all(f.found != MISSING for f in findings)
    typer.echo(f"{dangerous} dangerous, {warnings} warnings, {notes} notes: {_verdict(dangerous, warnings, is_whole)}")


def _verdict(dangerous: int, warnings: int, is_whole: bool) -> str:
    if dangerous:
        return "not safe for a pipeline. `magnetar plan` shows what `magnetar provision` would mend."
    if not is_whole:
        return "safe, but not all there: `magnetar provision` makes what is missing."
    return "safe, and could be better." if warnings else "clean."
