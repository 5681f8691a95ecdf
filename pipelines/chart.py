"""The Helm chart: a pipeline's values, derived from its declaration, and the chart itself out of the package."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Final

from magnetar.schemas import DataFolderError, SettingsError, TopicKind
from magnetar.schemas.names import kebab

from .pipeline import Pipeline

CHART: Final = "magnetar"
"""The chart's name, and its folder's in the package."""

_VALUES: Final = """\
# Derived from {module} by `magnetar helm values`. Edit what stands under `image` and `pulsar`, and sizes; the names
# follow from the declaration.
pipeline:
  module: {module}
  context: {context}
  partitions: {partitions}
image:
  repository: {repository}
  tag: {tag}
pulsar:
  url: {url}
  adminUrl: {admin_url}
  tenant: {tenant}
workers:
"""
_WORKER: Final = """\
  {name}:
    aggregate: {aggregate}
    topic: {topic}
    replicas: {replicas}
"""


def values_of(pipeline: Pipeline, module: str, *, url: str, admin_url: str, tenant: str, image: str) -> str:
    """The values of the pipeline's release, as YAML. `image` is `repository:tag`."""
    repository, _, tag = image.rpartition(":")
    head = {
        "module": module,
        "context": pipeline.name,
        "partitions": pipeline.partitions,
        "repository": repository,
        "tag": tag,
        "url": url,
        "admin_url": admin_url,
        "tenant": tenant,
    }
    written = {key: value if key == "module" else json.dumps(value) for key, value in head.items()}
    workers = (_worker(pipeline, aggregate, tenant) for aggregate in pipeline.aggregates)
    return _VALUES.format(**written) + "".join(workers)


def _worker(pipeline: Pipeline, aggregate: str, tenant: str) -> str:
    topic = pipeline.topic(aggregate, TopicKind.COMMANDS)
    return _WORKER.format(
        name=kebab(aggregate),
        aggregate=json.dumps(aggregate),
        topic=json.dumps(f"persistent://{tenant}/{topic}"),
        replicas=min(2, pipeline.partitions),
    )


def write_chart(folder: Path) -> Path:
    """Put the chart into a new folder within this one.

    Raises SettingsError if there is one already, DataFolderError if it cannot be written.
    """
    target = folder / CHART
    if target.exists():
        raise SettingsError(
            f"{target} exists already, and nothing is overwritten.", cure="Remove it, or name another folder."
        )
    try:
        with resources.as_file(resources.files("magnetar.helm") / CHART) as chart:
            shutil.copytree(chart, target)
    except OSError as error:
        raise DataFolderError(
            f"The chart cannot be written to {target}: {error.strerror}.", cure="Name a folder that you may write to."
        ) from error
    return target
