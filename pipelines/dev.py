"""`magnetar dev`: all parts of a pipeline on this machine, as processes under one supervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from .clock import Clock, SystemClock
from .comparing import Comparing
from .pipeline import Pipeline
from .reload import Check, Reloader, source_files
from .settings import EMBEDDED, Settings, open_log
from .sole_supervisor import sole_supervisor
from .supervisor import Part, Supervisor, cli_arguments, part_arguments

if TYPE_CHECKING:
    from .display import PlainDisplay
    from .runtime import StopSignal

EXIT_REFUSED: Final = 2
"""What they end with if a part was refused, and no save is waited for."""


def prepare(pipeline: Pipeline, settings: Settings, clock: Clock, stopped: Callable[[], bool] = lambda: False) -> None:
    """Create what is missing of the log, so that no part starts on a log that cannot be used."""
    from .runtime import provision_all, together, wait_for_log

    def provisioned() -> None:
        log = open_log(settings, clock)
        try:
            provision_all(together(pipeline, settings), log)
        finally:
            log.close()

    wait_for_log(provisioned, settings, clock, stopped)


def supervise(
    target: str, clock: Clock, *, arguments: list[str], say: Callable[[str], None] | None = None
) -> Supervisor:
    """A worker and a projector for the pipeline, not yet started. With `say`, what they log comes through it."""
    return Supervisor(
        [Part(role, [*part_arguments(role, target), *arguments], clock, say) for role in ("worker", "projector")]
    )


def run_dev(target: str, data: Path | None, *, reload: bool) -> None:
    """Run all parts until Ctrl-C; a part that dies is started again.

    1. Loads the pipeline. 2. Takes the data folder. 3. In a process of its own, tries its tables and projections on an
    empty ClickHouse, and makes what is missing of the log: what cannot run is refused here, before anything is started.
    4. Starts the parts. With `reload`, they are started anew when a file of the pipeline has changed and can run.

    Raises what the module or the folder is refused for, and Exit if the check in step 3 has said it.
    """
    from .loading import load_pipeline
    from .runtime import StopSignal
    from .settings import load_settings

    pipeline, settings, clock = load_pipeline(target), load_settings(data=data), SystemClock()
    if settings.broker == EMBEDDED:
        open_log(settings, clock).close()  # a folder of something else is refused before a lock is written to it
    with sole_supervisor(settings.data):
        check = Check(cli_arguments("check-again", target, "--data", str(settings.data)))
        if (refusal := check.wait()) is not None:
            typer.echo(refusal.text, err=True)
            raise typer.Exit(refusal.exit_code)
        stopped = StopSignal()
        with closing(_display(pipeline, settings, clock)) as display:
            _run_parts(target, pipeline, settings, display, stopped, reload=reload)
        typer.echo("magnetar dev: stopped")


def _run_parts(
    target: str, pipeline: Pipeline, settings: Settings, display: PlainDisplay, stopped: StopSignal, *, reload: bool
) -> None:
    from .logging import configure_logging

    configure_logging(role="dev")
    clock = SystemClock()
    arguments = ["--data", str(settings.data)]
    supervisor = supervise(target, clock, arguments=arguments, say=display.say if display.is_live else None)
    reloader = Reloader(source_files(target), cli_arguments("check-again", target, *arguments), clock)
    comparing = Comparing(cli_arguments("diff", target, *arguments))
    display.say(
        f"magnetar dev: pipeline {pipeline.name} with {', '.join(pipeline.aggregates)} on {pipeline.partitions} "
        f"partitions{_read_too(pipeline, settings)}, data in {settings.data.resolve()}\n"
        "Ctrl-C stops it; nothing is lost."
    )
    waiting: list[str] = []
    try:
        while not stopped():
            supervisor.look_after()
            if supervisor.refused and not reload:
                raise typer.Exit(EXIT_REFUSED)
            if supervisor.refused != waiting and (waiting := supervisor.refused):
                display.say(f"magnetar dev: the {' and the '.join(waiting)} cannot run so, and waits until you save.")
            if reload and (why_not := reloader.step()) is not None:
                if not why_not:
                    comparing.begin()  # it takes the log alone at first: the parts may end meanwhile
                display.say(_reload(supervisor, why_not))
            if (said := comparing.step()) is not None:
                display.say(said)
            display.show(supervisor.parts)
            stopped.wait(0.2)
    finally:
        comparing.close()
        reloader.close()
        supervisor.stop()


def _read_too(pipeline: Pipeline, settings: Settings) -> str:
    from .runtime import together

    names = [each.name for each in together(pipeline, settings) if each is not pipeline]
    return f", and what it reads: {', '.join(names)}" if names else ""


def _display(pipeline: Pipeline, settings: Settings, clock: Clock) -> PlainDisplay:
    from rich.console import Console

    from .display import LiveDisplay, PlainDisplay
    from .status import asking_who_runs

    console = Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainDisplay(console)
    return LiveDisplay(console, pipeline, open_log(settings, clock), clock, asking_who_runs(settings))


def _reload(supervisor: Supervisor, why_not: str) -> str:
    if why_not:
        return f"magnetar dev: not reloaded, the old parts go on.\n{why_not}"
    supervisor.stop()
    return "magnetar dev: reloaded"


def run_several(
    target: str, role: str, count: int, named: Mapping[str, Sequence[str]], *, data: Path | None, log_level: str
) -> None:
    """Run so many processes of a role until Ctrl-C; one that dies is started again. `named` are the aggregates or
    tables that they are for, by option.

    Raises what one of them would.
    """
    from .loading import load_pipeline
    from .projector_group import group_of
    from .runtime import StopSignal
    from .settings import load_settings

    pipeline, settings, clock = load_pipeline(target), load_settings(data=data), SystemClock()
    stopped = StopSignal()
    arguments = [*part_arguments(role, target), "--data", str(settings.data), "--log-level", log_level]
    for aggregate in named.get("--aggregate", ()):
        pipeline.schema_of(aggregate)
    group_of(pipeline, named.get("--table", ()), named.get("--without-table", ()))
    arguments += [each for option, names in named.items() for name in names for each in (option, name)]
    prepare(pipeline, settings, clock, stopped)
    supervisor = Supervisor([Part(f"{role} {n + 1}", arguments, clock) for n in range(count)])
    typer.echo(f"magnetar run: {count} {role}s for the pipeline {pipeline.name}. Ctrl-C stops them.")
    try:
        while not stopped():
            supervisor.look_after()
            if supervisor.refused:
                raise typer.Exit(EXIT_REFUSED)
            stopped.wait(0.2)
    finally:
        supervisor.stop()
    typer.echo("magnetar run: stopped")
