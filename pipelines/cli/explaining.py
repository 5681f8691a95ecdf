"""`explain`: what an error means, in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from . import completing


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="ERROR", help="The error's name; all of them without.", autocompletion=completing.errors
        ),
    ] = None,
) -> None:
    """Say what an error means: whose fault it is, whether trying again is safe, and what to do.

    **Example:** `magnetar explain OutcomeUnknown`
    """
    from ..explanations import explanation, leaves

    if name is None:
        width = max(map(len, leaves()))
        for each, error in leaves().items():
            typer.echo(f"{each:{width}}  {(error.__doc__ or '').splitlines()[0]}")
    else:
        typer.echo(explanation(name))
