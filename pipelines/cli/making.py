"""`new`: a project to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import AsJson, print_json


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project, its package and its pipeline: `shop`.")],
    json: AsJson = False,
) -> None:
    """Make a project: a package with an aggregate, a projection and a pipeline, its tests, and a CI file.

    It is made in a new folder of that name; nothing is overwritten.

    **Example:** `magnetar new shop`
    """
    from ..new_project import make_project

    files = make_project(name, Path())
    if json:
        print_json({"folder": name, "files": [str(file) for file in files]})
        return
    typer.echo("\n".join(f"{name}/{file}" for file in files))
    typer.echo(f"\nNext:\n  cd {name}\n  pip install --editable '.[dev]'\n  pytest\n  magnetar dev {name}.pipeline")
