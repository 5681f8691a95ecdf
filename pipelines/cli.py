"""The command line: `magnetar`. It parses and prints; what it does stands in the other modules."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from magnetar.schemas import Command, Fault, MagnetarError, SettingsError

if TYPE_CHECKING:
    from .pipeline import Pipeline

EXIT_YOURS, EXIT_WORLD, EXIT_OURS, EXIT_REJECTED, EXIT_PARKED = 2, 3, 70, 10, 11

app = typer.Typer(
    name="magnetar",
    help="Event sourcing and CQRS on Apache Pulsar, with analytics in ClickHouse.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Target = Annotated[
    str, typer.Argument(metavar="MODULE", help="The module that declares the pipeline: `shop.pipeline`.")
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The data folder (else MAGNETAR_DATA, else .magnetar).", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class Role(StrEnum):
    """Which part of a pipeline a process runs."""

    WORKER = "worker"
    PROJECTOR = "projector"


@app.command()
def dev(target: Target, data: Data = None) -> None:
    """Run a pipeline on this machine: log, worker and mirror, until Ctrl-C.

    **Example:** `magnetar dev shop.pipeline`
    """
    from .dev import run_dev

    run_dev(target, data)


@app.command()
def run(
    target: Target,
    role: Annotated[Role, typer.Option(help="What this process does.")] = Role.WORKER,
    data: Data = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run one part of a pipeline in this process: a worker that decides, or a projector that fills ClickHouse.

    **Example:** `magnetar run shop.pipeline --role worker`
    """
    from .loading import load_pipeline
    from .logging import configure_logging
    from .runtime import StopSignal, run_worker
    from .settings import load_settings

    configure_logging(log_level, role=role.value)
    stopped = StopSignal(supervised=supervised)
    pipeline, settings = load_pipeline(target), load_settings(data=data)
    if role is Role.WORKER:
        run_worker(pipeline, settings, stopped=stopped)
    else:
        from .projector import run_projector

        run_projector(pipeline, settings, stopped=stopped)


@app.command()
def send(
    target: Target,
    aggregate: Annotated[str, typer.Argument(help="The aggregate's name: `Order`.")],
    id: Annotated[str, typer.Argument(help="The aggregate's id.")],
    command: Annotated[str, typer.Argument(help="The command's name: `Ship`.")],
    fields: Annotated[str, typer.Argument(help="Its fields as a JSON object.")] = "{}",
    actor: Annotated[str | None, typer.Option(help="Who sends it.")] = None,
    command_id: Annotated[str | None, typer.Option(help="A UUIDv7, to repeat a command safely.")] = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Put a command on its topic; it is decided whenever a worker runs.

    **Example:** `magnetar send shop.pipeline Order 42 Ship '{"carrier": "UPS"}'`
    """
    from .loading import load_pipeline
    from .settings import load_settings

    pipeline = load_pipeline(target)
    cls, message = pipeline_command(pipeline, aggregate, command, fields)
    with _client(pipeline, load_settings(data=data)) as client:
        sent = client.send(cls, id, message, actor=actor, command_id=command_id)
    _print({"command_id": sent}, f"sent {command} to {aggregate} {id}: command {sent}", json)


@app.command()
def ask(
    target: Target,
    aggregate: Annotated[str, typer.Argument(help="The aggregate's name: `Order`.")],
    id: Annotated[str, typer.Argument(help="The aggregate's id.")],
    command: Annotated[str, typer.Argument(help="The command's name: `Ship`.")],
    fields: Annotated[str, typer.Argument(help="Its fields as a JSON object.")] = "{}",
    actor: Annotated[str | None, typer.Option(help="Who asks.")] = None,
    command_id: Annotated[str | None, typer.Option(help="A UUIDv7, to repeat a command safely.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 30.0,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Send a command and wait for what becomes of it. Exits with 10 if it was rejected, with 11 if it was parked.

    **Example:** `magnetar ask shop.pipeline Order 42 Ship '{"carrier": "UPS"}'`
    """
    from .asking import describe
    from .loading import load_pipeline
    from .settings import load_settings

    pipeline = load_pipeline(target)
    cls, message = pipeline_command(pipeline, aggregate, command, fields)
    with _client(pipeline, load_settings(data=data)) as client:
        receipt = client.ask(cls, id, message, actor=actor, command_id=command_id, timeout_seconds=timeout)
    answer, text = describe(receipt)
    _print(answer, text, json)
    if answer["outcome"] == "rejected":
        raise typer.Exit(EXIT_REJECTED)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; each event is a view: `shop.Shipped`.")],
    fmt: Annotated[str, typer.Option("--format", help="table, json, jsonl or csv.")] = "table",
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Ask ClickHouse, whether `magnetar dev` is running or not.

    **Example:** `magnetar query "SELECT count() FROM shop.Shipped" --format json`
    """
    from magnetar.projections.query import QueryFormat
    from magnetar.projections.query import query as answer

    from .settings import load_settings

    if fmt not in list(QueryFormat):
        raise SettingsError(f"There is no format {fmt!r}.", cure=f"Use one of {', '.join(QueryFormat)}.")
    chosen = QueryFormat.JSON if json else QueryFormat(fmt)
    found = answer(load_settings(data=data).data, sql, chosen).decode(errors="replace")
    typer.echo(found if not found or found.endswith("\n") else found + "\n", nl=False)


@app.command()
def transitions(
    target: Target,
    aggregate: Annotated[str, typer.Argument(help="The aggregate's name: `Order`.")],
    tests: Annotated[list[Path] | None, typer.Option(help="Where the tests are, if not where pytest looks.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="What a run with MAGNETAR_EVIDENCE=FILE has written.")] = None,
    json: AsJson = False,
) -> None:
    """Run the tests, and list which commands each kind of state takes and which it rejects, as they have shown.

    **Example:** `magnetar transitions shop.pipeline Order --tests tests/test_order.py`
    """
    from . import transitions as found
    from .loading import load_pipeline

    pipeline = load_pipeline(target)
    pipeline.schema_of(aggregate)
    shown = found.read_evidence(evidence) if evidence else found.gather(tests or [])
    table = found.transitions(pipeline.aggregates[aggregate], shown)
    if json:
        _print(found.as_json(table), "", json)
    else:
        found.show(table)


def pipeline_command(pipeline: Pipeline, aggregate: str, name: str, fields: str) -> tuple[Any, Command]:
    """The aggregate's class and the command built from JSON. Raises SettingsError naming what does not fit."""
    import msgspec

    schema = pipeline.schema_of(aggregate)
    if name not in schema.commands:
        known = ", ".join(schema.commands)
        raise SettingsError(f"{aggregate} has no command {name!r}.", cure=f"It has: {known}.")
    try:
        command = msgspec.json.decode(fields.encode(), type=schema.commands[name])
    except msgspec.MsgspecError as error:
        wanted = ", ".join(schema.commands[name].__struct_encode_fields__) or "none"
        raise SettingsError(f"The fields of {name} do not fit: {error}.", cure=f"Its fields: {wanted}.") from error
    return pipeline.aggregates[aggregate], command


def _client(pipeline: Pipeline, settings: Any) -> Any:
    from .client import SyncClient

    return SyncClient(pipeline, settings=settings)


def _print(answer: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(answer).decode())
    else:
        typer.echo(text)


def main() -> None:
    """Run the command line. Exit codes: 0, 2 your fault, 3 the world's, 10 rejected, 11 parked, 70 ours."""
    try:
        app()
    except MagnetarError as error:
        typer.echo(f"magnetar: {error}", err=True)
        sys.exit(exit_code(error))


def exit_code(error: MagnetarError) -> int:
    """What a process ends with for this error."""
    if type(error).__name__ == "CommandParked":
        return EXIT_PARKED
    return {Fault.YOURS: EXIT_YOURS, Fault.WORLD: EXIT_WORLD, Fault.OURS: EXIT_OURS}[error.fault]


if __name__ == "__main__":
    main()
