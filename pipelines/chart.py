"""The Helm chart: a pipeline's values, derived from its declaration, and the chart itself out of the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
from magnetar.schemas import DataFolderError, SettingsError, TopicKind, wire_name
from magnetar.schemas.names import kebab

from .pipeline import Pipeline
from .targets import targets_of

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
  digest: {digest}
pulsar:
  url: {url}
  adminUrl: {admin_url}
  tenant: {tenant}
workerDefaults:
  replicas: {replicas}
workers:
"""
_WORKER_VALUES: Final = """\
  {name}:
    aggregate: {aggregate}
    topic: {topic}
"""


class _Named(msgspec.Struct):
    context: str
    partitions: int


class _Worker(msgspec.Struct):
    aggregate: str
    topic: str = ""


class _Projector(msgspec.Struct):
    enabled: bool = True


class _Group(msgspec.Struct):
    tables: list[str]


class _Given(msgspec.Struct):
    pipeline: _Named
    workers: dict[str, _Worker]
    projector: _Projector = msgspec.field(default_factory=_Projector)
    projectors: dict[str, _Group] = msgspec.field(default_factory=dict)


def check_values(pipeline: Pipeline, module: str, tenant: str, given: str) -> None:
    """Refuse names in a release's values that the declaration does not have; `given` is what the chart writes of them.

    Raises SettingsError, whose text has the value's name for each that is wrong.
    """
    try:
        values = msgspec.json.decode(given, type=_Given)
    except msgspec.DecodeError as error:
        raise SettingsError(
            f"MAGNETAR_CHART_VALUES is not what the chart writes there: {error}.",
            cure="Unset it, outside of the chart.",
        ) from error
    names, groups = list(_wrong(pipeline, tenant, values)), list(_wrong_groups(pipeline, values))
    if names or groups:
        derived = f"`magnetar helm values {module}` derives pipeline and workers. " if names else ""
        chosen = "What projector and projectors fill is yours to write. " if groups else ""
        raise SettingsError(
            f"The values of the release are not of {module}:\n" + "\n".join(names + groups),
            cure=f"{derived}{chosen}Is it the image that you mean, by its tag?",
        )


def _wrong(pipeline: Pipeline, tenant: str, values: _Given) -> Iterator[str]:
    for key, declared in (("context", pipeline.name), ("partitions", pipeline.partitions)):
        if (found := getattr(values.pipeline, key)) != declared:
            yield f"pipeline.{key} is {found}, and {declared} is declared"
    for name, worker in values.workers.items():
        if worker.aggregate not in pipeline.aggregates:
            declared = ", ".join(pipeline.aggregates)
            yield f"workers.{name}.aggregate is {worker.aggregate}, and the aggregates are {declared}"
        elif worker.topic and worker.topic != (topic := _command_topic(pipeline, worker.aggregate, tenant)):
            yield f"workers.{name}.topic is {worker.topic}, and its commands come by {topic}"
    for aggregate in sorted(set(pipeline.aggregates) - {worker.aggregate for worker in values.workers.values()}):
        yield f"workers has none for {aggregate}: nobody would decide its commands. With replicas: 0, that is meant"


def _wrong_groups(pipeline: Pipeline, values: _Given) -> Iterator[str]:
    tables = list(targets_of(pipeline))
    views = {wire_name(each) for each in pipeline.projections} - set(tables)
    for name, group in values.projectors.items():
        for table in group.tables:
            if table not in tables:
                why = " (an Sql without `incremental` is a view)" if table in views else ""
                yield f"projectors.{name}.tables has {table}{why}, and the tables are {', '.join(tables)}"
    named = {table for group in values.projectors.values() for table in group.tables}
    left = [table for table in tables if table not in named]
    if named and left and not values.projector.enabled:
        yield f"projector.enabled is false, and projectors has no group with {', '.join(left)}: nobody would fill it"
    if not left and values.projector.enabled:
        yield "projectors has all tables, and nothing is left to fill. With projector.enabled: false, that is meant"


def values_of(pipeline: Pipeline, module: str, *, url: str, admin_url: str, tenant: str, image: str) -> str:
    """The values of the pipeline's release, as YAML. `image` is `repository:tag`, or `repository@sha256:…`."""
    repository, tag, digest = _parts_of(image)
    head = {
        "module": module,
        "context": pipeline.name,
        "partitions": pipeline.partitions,
        "repository": repository,
        "tag": tag,
        "digest": digest,
        "url": url,
        "admin_url": admin_url,
        "tenant": tenant,
        "replicas": min(2, pipeline.partitions),
    }
    written = {key: value if key == "module" else json.dumps(value) for key, value in head.items()}
    workers = (_worker(pipeline, aggregate, tenant) for aggregate in pipeline.aggregates)
    return _VALUES.format(**written) + "".join(workers)


def _parts_of(image: str) -> tuple[str, str, str]:
    """Its repository, tag and digest; a `:` before the last `/` is that of the registry's port."""
    named, _, digest = image.partition("@")
    folder, slash, last = named.rpartition("/")
    name, _, tag = last.partition(":")
    return folder + slash + name, tag, digest


def _worker(pipeline: Pipeline, aggregate: str, tenant: str) -> str:
    return _WORKER_VALUES.format(
        name=kebab(aggregate),
        aggregate=json.dumps(aggregate),
        topic=json.dumps(_command_topic(pipeline, aggregate, tenant)),
    )


def _command_topic(pipeline: Pipeline, aggregate: str, tenant: str) -> str:
    return f"persistent://{tenant}/{pipeline.topic(aggregate, TopicKind.COMMANDS)}"


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
