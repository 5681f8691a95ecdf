"""What the commands have in common: their parameters, their exit codes, and how they print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from magnetar.schemas import Fault, MagnetarError

from ..chart_settings import in_chart
from . import completing

if TYPE_CHECKING:
    from rich.table import Table

    from ..log import Log
    from ..pipeline import Pipeline
    from ..settings import Settings

EXIT_YOURS, EXIT_WORLD, EXIT_OURS, EXIT_REJECTED, EXIT_PARKED, EXIT_INTERRUPTED = 2, 3, 70, 10, 11, 130
EXIT_CODES: Final = (
    "Exit codes: 0 done, 2 something to correct, 3 something outside does not work, 10 rejected, 11 parked, "
    "70 an error within Magnetar, 130 Ctrl-C before it was done."
)

WIDE_COLUMNS: Final = 120
"""What counts as wide where there is no terminal: `magnetar dev` shows on one what a command has printed."""

Target = Annotated[
    str, typer.Argument(metavar="MODULE", help="The module that declares the pipeline: `shop.pipeline`.")
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The data folder (else MAGNETAR_DATA, else .magnetar).", show_default=False),
]
TableNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="These only: an aggregate, or a projection that is a table.",
        show_default=False,
        autocompletion=completing.tables,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
AggregateName = Annotated[
    str,
    typer.Argument(metavar="AGGREGATE", help="The aggregate's name: `Order`.", autocompletion=completing.aggregates),
]
AggregateId = Annotated[str, typer.Argument(metavar="ID", help="The aggregate's id.")]


def exit_code(error: MagnetarError) -> int:
    """What a process ends with for this error."""
    if type(error).__name__ == "CommandParked":
        return EXIT_PARKED
    return {Fault.YOURS: EXIT_YOURS, Fault.WORLD: EXIT_WORLD, Fault.OURS: EXIT_OURS}[error.fault]


def said(error: MagnetarError) -> str:
    """What is printed of an error."""
    in_values = in_chart(str(error))
    return f"magnetar: {error}{' ' * bool(in_values)}{in_values} (magnetar explain {type(error).__name__})"


def opened(target: str, data: Path | None) -> tuple[Pipeline, Settings, Log]:
    """The pipeline, the settings, and the log that they name, which the caller closes. Nothing is made.

    Raises DataFolderError for an embedded log that does not exist, and SettingsError for a pipeline that it does not
    fit.
    """
    from ..clock import SystemClock
    from ..loading import load_pipeline
    from ..provisioning import check_partitions
    from ..settings import load_settings, open_log

    pipeline, settings = load_pipeline(target), load_settings(data=data)
    log = open_log(settings, SystemClock(), make=False)
    check_partitions(pipeline, log)
    return pipeline, settings, log


def print_json(answer: Any) -> None:
    """Print a value as one line of JSON."""
    import msgspec

    typer.echo(msgspec.json.encode(answer).decode())


def sized(count: int) -> str:
    """A number of bytes for people, in units of a thousand: `74.8 GB`."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if round(size, 1) < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count:,} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"


def numbered(count: int, one: str) -> str:
    """So many of what is called `one` if it is one: `1 row`, `2,000 rows`."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: as wide as the terminal, or as wide as it needs where there is none, so that nothing is cut.

    Cells are text, never markup; numbers stand to the right.
    """
    from rich.console import Console

    console = Console(highlight=False)
    table = table_of(columns, rows)
    if not console.is_terminal:
        wide = Console(highlight=False, width=100_000)
        console = Console(highlight=False, width=max(60, wide.measure(table).maximum))
    console.print(table)


def print_wide(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; or, where that is wider than a terminal, a paragraph for each row, of a line for each cell."""
    from rich.console import Console

    console = Console(highlight=False)
    width = console.width if console.is_terminal else WIDE_COLUMNS
    if Console(width=100_000).measure(table_of(columns, rows)).maximum <= width:
        print_table(columns, rows)
        return
    name_width = max(map(len, columns))
    paragraphs = (
        "\n".join(f"{name.ljust(name_width)}  {cell}" for name, cell in zip(columns, row, strict=True)) for row in rows
    )
    typer.echo("\n\n".join(paragraphs))


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table without lines."""
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        is_number = all(isinstance(row[index], int) for row in cells)
        table.add_column(column, justify="right" if is_number and cells else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return table
