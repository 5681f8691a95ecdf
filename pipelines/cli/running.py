"""`dev` and `run`: a pipeline's processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from magnetar.schemas import DeclarationError, SettingsError

from .shared import Data, Target, print_json, said


class Role(StrEnum):
    """Which part of a pipeline a process runs."""

    WORKER = "worker"
    PROJECTOR = "projector"


def dev(
    target: Target,
    data: Data = None,
    reload: Annotated[bool, typer.Option(help="Start the parts anew when a file of the package changes.")] = True,
) -> None:
    """Run a pipeline on this machine: log, worker and mirror, until Ctrl-C.

    **Example:** `magnetar dev shop.pipeline`
    """
    from ..dev import run_dev

    run_dev(target, data, reload=reload)


def run(
    target: Target,
    role: Annotated[Role, typer.Option(help="What this process does.")] = Role.WORKER,
    workers: Annotated[
        int, typer.Option("--workers", "-w", help="So many processes, under a supervisor; one per core is usual.")
    ] = 1,
    aggregate: Annotated[
        list[str] | None, typer.Option(help="Decide for this aggregate only; may be given several times.")
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="Feed this aggregate's or projection's table only; several times as well.")
    ] = None,
    without_table: Annotated[
        list[str] | None, typer.Option(help="Feed all tables but this one; may be given several times.")
    ] = None,
    data: Data = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run one part of a pipeline: a worker that decides, or a projector that fills ClickHouse, until Ctrl-C.

    **Example:** `magnetar run shop.pipeline --role worker -w 4`
    """
    from ..loading import load_pipeline
    from ..logging import configure_logging
    from ..runtime import StopSignal, run_worker
    from ..settings import load_settings
    from ..supervisor import REFUSED

    configure_logging(log_level, role=role.value)
    only, tables, without = aggregate or [], table or [], without_table or []
    if only and role is not Role.WORKER:
        raise SettingsError("Only workers decide for some aggregates.", cure="Leave --aggregate out.")
    if (tables or without) and role is not Role.PROJECTOR:
        raise SettingsError("Only projectors feed tables.", cure="Leave --table and --without-table out.")
    if workers != 1:
        named = {"--aggregate": only, "--table": tables, "--without-table": without}
        _run_several(target, role, workers, named, data=data, log_level=log_level)
        return
    stopped = StopSignal(supervised=supervised)
    try:
        pipeline, settings = load_pipeline(target), load_settings(data=data)
        if supervised:  # several on one machine cannot answer on one port
            settings = settings.model_copy(update={"health_port": None})
        if role is Role.WORKER:
            run_worker(pipeline, settings, stopped=stopped, aggregates=only)
        else:
            from ..projector_group import group_of
            from ..projector_process import run_projector

            group = group_of(pipeline, tables, without) if tables or without else None
            run_projector(pipeline, settings, stopped=stopped, group=group)
    except DeclarationError as error:
        if not supervised:
            raise
        typer.echo(said(error), err=True)
        raise typer.Exit(REFUSED) from error


def _run_several(
    target: str, role: Role, workers: int, named: Mapping[str, Sequence[str]], *, data: Data, log_level: str
) -> None:
    from ..dev import run_several
    from ..settings import load_settings

    if role is not Role.WORKER and load_settings().server() is None:
        raise SettingsError(
            "The embedded ClickHouse is open in one projector alone.",
            cure="Leave --workers out, or name a server in MAGNETAR_CLICKHOUSE.",
        )
    if workers < 1:
        raise SettingsError(f"{workers} processes cannot run.", cure="Use 1 or more.")
    run_several(target, role.value, workers, named, data=data, log_level=log_level)


def check_again(target: Target, data: Data = None) -> None:
    """Try in a new process whether the pipeline can run, and make what is missing of its topics: what `dev` does first.

    Prints the pipeline's files, as JSON.
    """
    from ..clock import SystemClock
    from ..dev import prepare
    from ..loading import load_pipeline
    from ..reload import source_files
    from ..settings import load_settings
    from ..trial import try_tables

    pipeline, settings = load_pipeline(target), load_settings(data=data)
    files = source_files(target)
    try_tables(pipeline)
    prepare(pipeline, settings, SystemClock())
    print_json(sorted(map(str, files)))
