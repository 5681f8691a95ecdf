"""`magnetar dev`: all parts of a pipeline on this machine, as processes under one supervisor."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from magnetar.schemas import DataFolderError

from .clock import Clock, SystemClock
from .pipeline import Pipeline
from .reload import Reloader, source_files
from .settings import Settings, open_log
from .supervisor import Part, Supervisor, cli_arguments, part_arguments

if TYPE_CHECKING:
    from .display import PlainDisplay
    from .runtime import StopSignal


@contextmanager
def sole_supervisor(folder: Path) -> Generator[None]:
    """Hold the data folder against a second `dev`. Raises DataFolderError naming the process that holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "dev.lock").open("a+")
    except OSError as error:
        raise DataFolderError(
            f"The data folder {folder} cannot be written: {error.strerror}.", cure="Choose another with --data."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise DataFolderError(
                f"The data folder {folder} is in use by another `magnetar dev`, process {holder}.",
                cure="Stop that one, or choose another folder with --data.",
                pid=holder,
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def prepare(pipeline: Pipeline, settings: Settings, clock: Clock) -> None:
    """Create what is missing of the log, so that no part starts on a folder that cannot be used."""
    from .runtime import provision

    log = open_log(settings, clock)
    try:
        provision(pipeline, log)
    finally:
        log.close()


def supervise(
    target: str, clock: Clock, *, arguments: list[str], say: Callable[[str], None] | None = None
) -> Supervisor:
    """A worker and a projector for the pipeline, not yet started. With `say`, what they log comes through it."""
    return Supervisor(
        [Part(role, [*part_arguments(role, target), *arguments], clock, say) for role in ("worker", "projector")]
    )


def run_dev(target: str, data: Path | None, *, reload: bool) -> None:
    """Run all parts until Ctrl-C; a part that dies is started again.

    With `reload`, the parts are started anew when a file of the pipeline's package has changed and can be imported.
    Raises what a part that cannot run at all would: the pipeline is loaded and the folder opened here first.
    """
    from .loading import load_pipeline
    from .runtime import StopSignal
    from .settings import load_settings

    pipeline, settings, clock = load_pipeline(target), load_settings(data=data), SystemClock()
    prepare(pipeline, settings, clock)
    with sole_supervisor(settings.data):
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
    display.say(
        f"magnetar dev: pipeline {pipeline.name} with {', '.join(pipeline.aggregates)} on {pipeline.partitions} "
        f"partitions, data in {settings.data.resolve()}\nCtrl-C stops it; nothing is lost."
    )
    try:
        while not stopped():
            supervisor.look_after()
            if reload and (why_not := reloader.step()) is not None:
                display.say(_reload(supervisor, why_not))
            display.show(supervisor.parts)
            stopped.wait(0.2)
    finally:
        reloader.close()
        supervisor.stop()


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
        return f"magnetar dev: not reloaded, the old parts go on. {why_not}"
    supervisor.stop()
    return "magnetar dev: reloaded"


def run_workers(target: str, workers: int, aggregates: Sequence[str], *, data: Path | None, log_level: str) -> None:
    """Run so many worker processes, for these aggregates or all, until Ctrl-C; one that dies is started again.

    Raises what a worker would.
    """
    from .loading import load_pipeline
    from .runtime import StopSignal
    from .settings import load_settings

    pipeline, settings, clock = load_pipeline(target), load_settings(data=data), SystemClock()
    prepare(pipeline, settings, clock)
    arguments = [*part_arguments("worker", target), "--data", str(settings.data), "--log-level", log_level]
    for aggregate in aggregates:
        pipeline.schema_of(aggregate)
        arguments += ["--aggregate", aggregate]
    stopped = StopSignal()
    supervisor = Supervisor([Part(f"worker {n + 1}", arguments, clock) for n in range(workers)])
    typer.echo(f"magnetar run: {workers} workers for the pipeline {pipeline.name}. Ctrl-C stops them.")
    try:
        while not stopped():
            supervisor.look_after()
            stopped.wait(0.2)
    finally:
        supervisor.stop()
    typer.echo("magnetar run: stopped")
