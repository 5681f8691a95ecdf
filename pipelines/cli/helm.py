"""`helm`: what a cluster needs of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import Target

helm = typer.Typer(
    name="helm", help="Deploy with Helm: the chart, and a pipeline's values for it.", no_args_is_help=True,
    rich_markup_mode="markdown",
)  # fmt: skip


@helm.command()
def values(
    target: Target,
    image: Annotated[
        str, typer.Option(help="The image with the pipeline: `repository:tag`, or `repository@sha256:…`.")
    ] = "",
) -> None:
    """Print the values of a pipeline's release: names are derived, sizes are yours to edit.

    The broker's addresses and the tenant are those of the settings, if they name a Pulsar.

    **Example:** `magnetar helm values shop.pipeline --image registry.example/shop:1.0.0 > values.yaml`
    """
    from ..chart import values_of
    from ..loading import load_pipeline
    from ..settings import EMBEDDED, load_settings

    pipeline, settings = load_pipeline(target), load_settings()
    broker = "pulsar://pulsar-broker:6650" if settings.broker == EMBEDDED else settings.broker
    admin = "http://pulsar-broker:8080" if settings.broker == EMBEDDED else settings.broker_admin
    image = image or f"{pipeline.name.replace('_', '-')}:latest"
    text = values_of(pipeline, target, url=broker, admin_url=admin, tenant=settings.tenant, image=image)
    typer.echo(text, nl=False)


@helm.command()
def chart(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the folder `magnetar` is made.")] = Path(),
) -> None:
    """Put the chart into a folder.

    **Example:** `magnetar helm chart deploy && helm install shop deploy/magnetar --values values.yaml`
    """
    from ..chart import write_chart

    typer.echo(write_chart(folder))
