"""What a cluster gets from the package: the chart, and a pipeline's values."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from magnetar.pipelines import Pipeline
from magnetar.pipelines.chart import check_values, values_of, write_chart
from magnetar.projections import Sql
from magnetar.schemas import DataFolderError, SettingsError

from tests.unit.pipelines.purses import purses

GIVEN = {"url": "pulsar://p:6650", "admin_url": "http://p:8080", "tenant": "acme"}


def test_the_names_of_the_values_follow_from_the_declaration() -> None:
    text = values_of(purses, "purses.pipeline", **GIVEN, image="registry.example:5000/purses:1.2")
    assert text.endswith(
        """\
pipeline:
  module: purses.pipeline
  context: "purses"
  partitions: 2
image:
  repository: "registry.example:5000/purses"
  tag: "1.2"
  digest: ""
pulsar:
  url: "pulsar://p:6650"
  adminUrl: "http://p:8080"
  tenant: "acme"
workerDefaults:
  replicas: 2
workers:
  purse:
    aggregate: "Purse"
    topic: "persistent://acme/purses/purse-commands"
  door:
    aggregate: "Door"
    topic: "persistent://acme/purses/door-commands"
"""
    )


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "parts"),
    {
        "shop:1": ("shop", "1", ""),
        "shop": ("shop", "", ""),
        "registry.example:5000/shop": ("registry.example:5000/shop", "", ""),
        "registry.example:5000/team/shop:1.2": ("registry.example:5000/team/shop", "1.2", ""),
        f"registry.example:5000/shop@{DIGEST}": ("registry.example:5000/shop", "", DIGEST),
        f"registry.example/shop:1.2@{DIGEST}": ("registry.example/shop", "1.2", DIGEST),
    }.items(),
)
def test_an_image_is_taken_apart_as_a_registry_does(image: str, parts: tuple[str, str, str]) -> None:
    found = yaml.safe_load(values_of(purses, "purses.pipeline", **GIVEN, image=image))["image"]
    assert (found["repository"], found["tag"], found["digest"]) == parts


def given(**changes: Any) -> str:
    """What the chart tells its Job, with these changed."""
    workers = {"purse": {"aggregate": "Purse", "topic": "persistent://acme/purses/purse-commands"}}
    pipeline = {"context": "purses", "partitions": 2} | changes.pop("pipeline", {})
    groups = {key: changes.pop(key) for key in ("projector", "projectors") if key in changes}
    return json.dumps({"pipeline": pipeline, "workers": workers | {"door": {"aggregate": "Door"}} | changes, **groups})


def test_values_that_are_the_declarations_are_taken() -> None:
    check_values(purses, "purses.pipeline", "acme", given())
    doors = {"doors": {"tables": ["Door"]}}
    check_values(purses, "purses.pipeline", "acme", given(projectors=doors, projector={"enabled": True}))
    both = doors | {"purses": {"tables": ["Purse"]}}
    check_values(purses, "purses.pipeline", "acme", given(projectors=both, projector={"enabled": False}))
    check_values(purses, "purses.pipeline", "acme", given(projector={"enabled": False}))


REFUSED = {
    "pipeline.context is purse, and purses is declared": given(pipeline={"context": "purse"}),
    "pipeline.partitions is 4, and 2 is declared": given(pipeline={"partitions": 4}),
    "workers.gate.aggregate is Gate, and the aggregates are Purse, Door": given(gate={"aggregate": "Gate"}),
    "workers.door.topic is persistent://public/purses/door-commands, and its commands come by persistent://acme/purses/"
    "door-commands": given(door={"aggregate": "Door", "topic": "persistent://public/purses/door-commands"}),
    "workers has none for Door: nobody would decide": given(door={"aggregate": "Purse"}),
    "projectors.doors.tables has Gate, and the tables are Purse, Door": given(
        projectors={"doors": {"tables": ["Gate"]}}
    ),
    "projector.enabled is false, and projectors has no group with Purse: nobody would fill it": given(
        projectors={"doors": {"tables": ["Door"]}}, projector={"enabled": False}
    ),
    "projectors has all tables, and nothing is left to fill. With projector.enabled: false, that is meant": given(
        projectors={"all": {"tables": ["Door", "Purse"]}}
    ),
    "MAGNETAR_CHART_VALUES is not what the chart writes": '{"pipeline": 7}',
}


@pytest.mark.parametrize(("said", "values"), REFUSED.items(), ids=REFUSED)
def test_values_that_are_not_the_declarations_are_refused_by_name(said: str, values: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_values(purses, "purses.pipeline", "acme", values)
    assert said in str(refused.value)


def test_the_cure_says_what_is_derived_and_what_is_not() -> None:
    group = {"doors": {"tables": ["Gate"]}}
    for values, derived, chosen in (
        (given(pipeline={"partitions": 4}), True, False),
        (given(projectors=group), False, True),
        (given(pipeline={"partitions": 4}, projectors=group), True, True),
    ):
        with pytest.raises(SettingsError) as refused:
            check_values(purses, "purses.pipeline", "acme", values)
        assert ("`magnetar helm values purses.pipeline` derives pipeline and workers" in str(refused.value)) is derived
        assert ("What projector and projectors fill is yours to write" in str(refused.value)) is chosen


def test_a_group_with_a_view_is_told_that_it_has_no_table() -> None:
    class Paid(Sql):
        query = "SELECT 1"

    pipeline = Pipeline("purses", aggregates=[*purses.aggregates.values()], projections=[Paid], partitions=2)
    with pytest.raises(
        SettingsError, match=r"tables has Paid \(an Sql without `incremental` is a view\), and the tables are"
    ):
        check_values(pipeline, "purses.pipeline", "acme", given(projectors={"paid": {"tables": ["Paid"]}}))


def test_the_chart_comes_whole_out_of_the_package(tmp_path: Path) -> None:
    chart = write_chart(tmp_path)
    files = {str(path.relative_to(chart)) for path in chart.rglob("*") if path.is_file()}
    assert {".helmignore", "Chart.yaml", "README.md", "values.yaml", "values.schema.json"} <= files
    assert {"templates/_helpers.tpl", "templates/workers.yaml", "templates/NOTES.txt", "files/alerts.yaml"} <= files


def test_a_chart_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    write_chart(tmp_path)
    with pytest.raises(SettingsError, match="exists already"):
        write_chart(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError, match="file"):
        write_chart(tmp_path / "file")
