"""What the chart makes for KEDA and the Prometheus operator, by the schemas of their own definitions. No cluster."""

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.helm.conftest import Chart, Objects, Values, minimal
from tests.helm.test_chart import EVERYTHING
from tests.kubernetes.published import KEDA, PROMETHEUS_OPERATOR

NEEDS = (KEDA, PROMETHEUS_OPERATOR)
MATRIX: dict[str, Values] = {
    "everything": EVERYTHING,
    "no token": EVERYTHING | {"pulsar": {"url": "pulsar://pulsar:6650", "adminUrl": "http://pulsar:8080"}},
    "labels of its own": EVERYTHING | {"prometheusRule": {"enabled": True, "labels": {"prometheus": "1"}}},
    **{
        f"an interval of {interval}": EVERYTHING | {"serviceMonitor": {"enabled": True, "interval": interval}}
        for interval in ("1500ms", "30s", "2m", "1h")
    },
}
FREE = {"annotations", "labels", "matchLabels", "metadata"}
"""The fields within which names are the chart's own choice; a trigger's metadata is told by test_keda.py."""


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    """What knows whether an object is one, by its kind."""
    found = {}
    for definition in (each for needed in NEEDS for each in needed.definitions()):
        (version,) = (each for each in definition["spec"]["versions"] if each["storage"])
        schema = closed(version["schema"]["openAPIV3Schema"])
        found[definition["spec"]["names"]["kind"]] = jsonschema.Draft202012Validator(schema)
    return found


def closed(schema: Any) -> Any:
    """The schema without room for other fields than it names: a server drops them, and Helm only warns."""
    if not isinstance(schema, dict):
        return schema
    of_fields = {name: closed(each) for name, each in schema.get("properties", {}).items()}
    more = {key: closed(schema[key]) for key in ("items", "additionalProperties") if key in schema}
    shut = {"additionalProperties": False} if of_fields and "x-kubernetes-preserve-unknown-fields" not in schema else {}
    return {**schema, **({"properties": of_fields} if of_fields else {}), **shut, **more}


def for_others(objects: Objects) -> list[Any]:
    """Those that Kubernetes itself does not know."""
    groups = {"keda.sh", "monitoring.coreos.com"}
    return [each for each in objects.values() if each["apiVersion"].split("/")[0] in groups]


@pytest.mark.parametrize("changes", MATRIX.values(), ids=MATRIX)
def test_every_object_is_one_by_its_projects_definition(
    chart: Chart, definitions: dict[str, Any], changes: Values
) -> None:
    for each in for_others(chart.render(minimal(**changes))):
        definitions[each["kind"]].validate(each)
        named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": each["metadata"]}
        kubernetes_validate.validate(named, "1.37", strict=True)


def test_each_definition_has_an_object(chart: Chart, definitions: dict[str, Any]) -> None:
    assert {each["kind"] for each in for_others(chart.render(minimal(**EVERYTHING)))} == definitions.keys()


def misspelled(value: Any) -> Iterator[Any]:
    """The value once for each of its fields, with that field's name misspelled."""
    places: list[Any] = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    for place in places:
        if isinstance(place, str):
            yield {(f"{key}z" if key == place else key): each for key, each in value.items()}
        if place not in FREE:
            for wrong in misspelled(value[place]):
                changed = copy.copy(value)
                changed[place] = wrong
                yield changed


def test_no_field_of_an_object_can_be_misspelled(chart: Chart, definitions: dict[str, Any]) -> None:
    for each in for_others(chart.render(minimal(**EVERYTHING))):
        tried = [{**each, "spec": spec} for spec in misspelled(each["spec"])]
        assert len(tried) >= 4
        for wrong in tried:
            assert not definitions[each["kind"]].is_valid(wrong), wrong["spec"]


def test_a_time_that_is_none_and_a_rule_without_an_expression_are_refused(
    chart: Chart, definitions: dict[str, Any]
) -> None:
    objects = chart.render(minimal(**EVERYTHING))
    monitor, rule = objects["ServiceMonitor", "rel"], objects["PrometheusRule", "rel"]
    monitor["spec"]["endpoints"][0]["interval"] = "soon"
    del rule["spec"]["groups"][0]["rules"][0]["expr"]
    for each, said in ((monitor, "soon"), (rule, "expr")):
        with pytest.raises(jsonschema.ValidationError, match=said):
            definitions[each["kind"]].validate(each)
