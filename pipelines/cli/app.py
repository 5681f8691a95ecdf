"""The Typer application: all commands, and what becomes of the errors that they raise."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from magnetar.schemas import MagnetarError, SettingsError

from . import (
    checkpoint,
    copying,
    diffing,
    explaining,
    helm,
    interrupts,
    looking,
    making,
    parked,
    provisioning,
    quarantined,
    rebuilding,
    running,
    talking,
    testing,
)
from .shared import EXIT_CODES, EXIT_INTERRUPTED, EXIT_OURS, EXIT_WORLD, exit_code, said

app = typer.Typer(
    name="magnetar",
    help="Event sourcing and CQRS on Apache Pulsar, with analytics in ClickHouse.",
    epilog=f"`magnetar COMMAND --help` shows an example of each. {EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    making.new,
    running.dev,
    running.run,
    provisioning.plan,
    provisioning.provision,
    provisioning.doctor,
    talking.send,
    talking.ask,
    talking.query,
    looking.topology,
    looking.status,
    looking.history,
    parked.parked,
    quarantined.quarantined,
    diffing.diff,
    diffing.fork,
    rebuilding.rebuild,
    checkpoint.checkpoint,
    copying.copy,
    testing.transitions,
    explaining.explain,
):
    app.command()(command)
app.add_typer(helm.helm)
app.command("check-again", hidden=True)(running.check_again)


_FULL: Final = "no room is left where the output goes. Make room; look at what was done before you ask again."


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"magnetar {version('magnetar')}")
        raise typer.Exit


@app.callback()
def main_options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before a command."""


def run() -> None:
    """Run the command line, and end the process with what `EXIT_CODES` says.

    With MAGNETAR_DEBUG set, an error's whole traceback is printed.
    """
    try:
        _check_arguments(sys.argv[1:])
        app()
    except MagnetarError as error:
        _print_traceback()
        typer.echo(said(error), err=True)
        sys.exit(exit_code(error))
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - nothing that a user does should lead here: it is reported as ours
        if interrupts:
            sys.exit(EXIT_INTERRUPTED)
        _print_traceback()
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        typer.echo(f"magnetar: {_FULL if is_full else _internal(error)}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what could not be written is not tried again
        sys.exit(EXIT_WORLD if is_full else EXIT_OURS)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Python gives bytes that are no text as lone surrogates, which nothing that writes text can write."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise SettingsError(f"The argument {argument!r} is not UTF-8.", cure="Write it as text.") from error


def _internal(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - a frame's file may be no path
    return (
        f"an error within Magnetar: {type(error).__name__}: {' '.join(str(error).split())} ({place}). "
        "Please report it, with the command, `magnetar --version`, and what it prints with MAGNETAR_DEBUG=1."
    )


def _print_traceback() -> None:
    if os.environ.get("MAGNETAR_DEBUG"):
        traceback.print_exc()
