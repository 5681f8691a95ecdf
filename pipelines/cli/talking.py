"""`send`, `ask` and `query`: putting commands in, and asking the tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from enum import EnumMeta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import typer
from magnetar.schemas import Command, QueryRefused, SettingsError

from . import completing
from .shared import EXIT_REJECTED, AggregateId, AggregateName, AsJson, Data, Target, print_json

if TYPE_CHECKING:
    from magnetar.projections.query import QueryFormat

    from ..pipeline import Pipeline

PLOT: Final = "plot"

_UNKNOWN_IDENTIFIER: Final = 47

CommandName = Annotated[
    str,
    typer.Argument(metavar="COMMAND", help="The command's name: `Ship`.", autocompletion=completing.commands),
]
Fields = Annotated[str, typer.Argument(metavar="FIELDS", help="Its fields as a JSON object.")]
Actor = Annotated[str | None, typer.Option(help="Who sends it.")]
CommandId = Annotated[str | None, typer.Option(help="A UUIDv7, to repeat a command safely.")]


def send(
    target: Target,
    aggregate: AggregateName,
    id: AggregateId,
    command: CommandName,
    fields: Fields = "{}",
    actor: Actor = None,
    command_id: CommandId = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Put a command on its topic; it is decided whenever a worker runs.

    **Example:** `magnetar send shop.pipeline Order 42 Ship '{"carrier": "UPS"}'`
    """
    from ..client import SyncClient
    from ..loading import load_pipeline
    from ..settings import load_settings

    pipeline = load_pipeline(target)
    cls, message = pipeline_command(pipeline, aggregate, command, fields)
    with SyncClient(pipeline, settings=load_settings(data=data)) as client:
        sent = client.send(cls, id, message, actor=actor, command_id=command_id)
    if json:
        print_json({"command_id": sent})
    else:
        typer.echo(f"sent {command} to {aggregate} {id}: command {sent}")


def ask(
    target: Target,
    aggregate: AggregateName,
    id: AggregateId,
    command: CommandName,
    fields: Fields = "{}",
    actor: Actor = None,
    command_id: CommandId = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 30.0,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Send a command and wait for what becomes of it. Exits with 10 if it was rejected, with 11 if it was parked.

    **Example:** `magnetar ask shop.pipeline Order 42 Ship '{"carrier": "UPS"}'`
    """
    from .. import asking
    from ..connection import connect
    from ..loading import load_pipeline
    from ..outgoing import Details
    from ..settings import load_settings

    pipeline = load_pipeline(target)
    cls, message = pipeline_command(pipeline, aggregate, command, fields)
    details = Details(command_id, actor)
    with closing(connect(pipeline, load_settings(data=data))) as connection:
        receipt = asking.ask(connection, cls, id, message, details, timeout_seconds=timeout, say=_say)
    answer, text = asking.describe(receipt)
    if json:
        print_json(answer)
    else:
        typer.echo(text)
    if answer["outcome"] == "rejected":
        raise typer.Exit(EXIT_REJECTED)


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT; each event is a view: `shop.Shipped`.")],
    fmt: Annotated[str, typer.Option("--format", help="table, json, jsonl, csv, arrow or plot.")] = "table",
    as_plot: Annotated[
        bool, typer.Option("--plot", help="The same as --format plot: the first column is x, the second a number.")
    ] = False,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="POSITION", help="Show all up to there: what `ask` printed. More than once for several."),
    ] = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --after: how long to wait for the tables.")
    ] = 10.0,  # freshness.WAIT_SECONDS, whose module would bring fastavro into every --help
    stale: Annotated[
        bool, typer.Option("--stale", help="With --after: then answer from what is there, and say how far it is.")
    ] = False,
    fail: Annotated[bool, typer.Option("--fail", help="With --after: do not wait, the same as --wait 0.")] = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Ask ClickHouse, whether `magnetar dev` is running or not.

    With --after, the answer shows what was written at that position, or the command ends with 3. A plot has a bar for
    each row, or, for more than 40 rows, a line over numbers, dates or times.

    **Examples:**

    `magnetar query "SELECT count() FROM shop.Shipped" --json`

    `magnetar query "SELECT * FROM shop.commits" --format arrow > commits.arrow`

    `magnetar query "SELECT sku, sum(pieces) FROM shop.Bought GROUP BY sku" --plot`
    """
    from magnetar.projections.query import QueryFormat
    from magnetar.projections.query import query as answer

    from ..raw_query import answer_after
    from ..reading import NEW_COLUMN
    from ..settings import load_settings

    chosen, is_plot = _format(fmt, as_plot=as_plot, json=json)
    settings = load_settings(data=data)
    folder, server = settings.data, settings.server()

    def ask(form: QueryFormat) -> bytes:
        if not after:
            return answer(folder, sql, form, server)
        found, late = answer_after(
            folder, sql, form, after, wait_seconds=0 if fail else wait, stale=stale, server=server
        )
        if late is not None:
            typer.echo(f"stale: {late.what}", err=True)
        return found

    try:
        found = ask(chosen)
    except QueryRefused as error:
        if error.fields.get("code") == _UNKNOWN_IDENTIFIER:
            error.cure = NEW_COLUMN
        raise
    if is_plot:
        found = _plotted(found)
    elif chosen is QueryFormat.TABLE and not found:
        found = _nothing(ask(QueryFormat.JSON))
    if chosen is not QueryFormat.ARROW and found and not found.endswith(b"\n"):
        found += b"\n"
    sys.stdout.buffer.write(found)
    sys.stdout.buffer.flush()


def _format(fmt: str, *, as_plot: bool, json: bool) -> tuple[QueryFormat, bool]:
    """What to ask for, and whether it is to be plotted. Raises SettingsError."""
    from magnetar.projections.query import QueryFormat

    if fmt not in {*QueryFormat, PLOT}:
        raise SettingsError(f"There is no format {fmt!r}.", cure=f"Use one of {', '.join([*QueryFormat, PLOT])}.")
    is_plot = (as_plot or fmt == PLOT) and not json
    chosen = QueryFormat.JSON if json or is_plot else QueryFormat(fmt)
    if chosen is QueryFormat.ARROW and sys.stdout.isatty():
        raise SettingsError("Arrow is not for a terminal.", cure="Redirect the output into a file.")
    return chosen, is_plot


def _nothing(answer: bytes) -> bytes:
    """An answer without rows, for people: its columns. Nothing for what is no SELECT, or has a format of its own."""
    import msgspec

    try:
        columns = [str(column["name"]) for column in msgspec.json.decode(answer)["meta"]]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return b""
    return f"{'  '.join(columns)}\n0 rows\n".encode()


def _plotted(answer: bytes) -> bytes:
    import shutil

    import msgspec

    from ..plot import plot

    try:
        found = msgspec.json.decode(answer)
        columns = [str(column["name"]) for column in found["meta"]]
        rows = [tuple(row.values()) for row in found["data"]]
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise SettingsError(
            "What has a format of its own cannot be plotted.", cure="Leave FORMAT out of the query."
        ) from error
    return "\n".join(plot(columns, rows, shutil.get_terminal_size().columns)).encode()


def _say(text: str) -> None:
    typer.echo(f"magnetar: {text}", err=True)


_PLAIN: Final = {
    "Invalid RFC3339 encoded date ": "a date is written 2026-01-31 ",
    "Invalid RFC3339 encoded datetime ": "a time is written 2026-01-31T12:00:00Z ",
    "Invalid RFC3339 encoded time ": "a time of day is written 12:00:00 ",
    "Invalid ISO8601 duration ": "a duration is written PT90S, or P1D ",
}


def _in_plain_words(error: Exception) -> str:
    """msgspec's words, without the numbers of standards that nobody knows by heart."""
    text = str(error)
    for theirs, ours in _PLAIN.items():
        text = text.replace(theirs, ours)
    return text


def _fields_of(command: type[Command]) -> Iterator[str]:
    """The names of its fields, with the values of those that have few: `priority (low, high)`."""
    from magnetar.schemas.signatures import members_of

    for name, hint in get_type_hints(command).items():
        if name in command.__struct_encode_fields__:
            values = [str(value) for member in members_of(hint) for value in _values_of(member)]
            yield f"{name} ({', '.join(values)})" if values else name


def _values_of(hint: Any) -> Sequence[Any]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    return [member.value for member in list[Any](hint)] if isinstance(hint, EnumMeta) else []


def pipeline_command(pipeline: Pipeline, aggregate: str, name: str, fields: str) -> tuple[Any, Command]:
    """The aggregate's class and the command built from JSON. Raises SettingsError naming what does not fit."""
    import msgspec

    schema = pipeline.schema_of(aggregate)
    if name not in schema.commands:
        known = ", ".join(schema.commands)
        raise SettingsError(f"{aggregate} has no command {name!r}.", cure=f"It has: {known}.")
    cls = schema.commands[name]
    known_fields = cls.__struct_encode_fields__
    cure = f"Its fields: {', '.join(_fields_of(cls)) or 'none'}."
    try:
        given = msgspec.json.decode(fields.encode(), type=dict[str, msgspec.Raw])
        # msgspec passes over what it does not know: a misspelled field would be its default in the log for ever.
        if unknown := sorted(given.keys() - set(known_fields)):
            raise SettingsError(f"{name} has no field {unknown[0]!r}.", cure=cure)
        command: Command = msgspec.json.decode(fields.encode(), type=cls)
    except msgspec.MsgspecError as error:
        raise SettingsError(f"The fields of {name} do not fit: {_in_plain_words(error)}.", cure=cure) from error
    return pipeline.aggregates[aggregate], command
