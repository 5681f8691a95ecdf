"""What the chart makes for KEDA, as KEDA's own definitions and parameters see it. Its operator does not run."""

import json
from typing import Any

import pytest

from tests.helm.conftest import Chart, minimal
from tests.kubernetes.conftest import Define
from tests.kubernetes.control_plane import Api
from tests.kubernetes.published import KEDA

NEEDS = (KEDA,)
PATHS = {"ScaledObject": "scaledobjects", "TriggerAuthentication": "triggerauthentications"}
SECURED = {
    "url": "pulsar+ssl://pulsar:6651",
    "adminUrl": "https://pulsar:8443",
    "auth": {"existingSecret": "jwt", "key": "jwt"},
    "tls": {"caConfigMap": "authority"},
}


@pytest.fixture(scope="session")
def scaled(chart: Chart) -> dict[str, Any]:
    """Its objects for KEDA, by kind, where Pulsar wants a token and has an authority of its own."""
    objects = chart.render(minimal(pulsar=SECURED, workerDefaults={"autoscaling": {"enabled": True}}))
    found = {kind: each for (kind, _), each in objects.items() if each["apiVersion"].startswith("keda.sh/")}
    assert found.keys() == PATHS.keys()
    return found


def test_the_server_takes_them_by_kedas_definitions(
    api: Api, define: Define, namespace: str, scaled: dict[str, Any]
) -> None:
    define(KEDA)
    for kind, plural in PATHS.items():
        path = f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/{plural}?fieldValidation=Strict"
        answer = api.post(path, scaled[kind])
        assert answer.status_code == 201, answer.text
        assert "warning" not in answer.headers
        misspelled = {"metadata": {"name": "wrong"}, "spec": {**scaled[kind]["spec"], "trigers": []}}
        assert "trigers" in api.post(path, {**scaled[kind], **misspelled}).text


def parameters(scaler: str) -> list[Any]:
    """What KEDA says that a trigger of that type may say, each with its name and where it may stand."""
    scalers = json.loads(KEDA.text("scalers-schema.json"))["scalers"]
    return next(each["parameters"] for each in scalers if each["type"] == scaler)


def test_keda_knows_the_trigger_and_all_that_is_said_to_it(scaled: dict[str, Any]) -> None:
    (trigger,) = scaled["ScaledObject"]["spec"]["triggers"]
    known = {each["name"]: each for each in parameters(trigger["type"])}
    assert all(known[name].get("metadataVariableReadable") for name in trigger["metadata"])
    assert trigger["metadata"]["authModes"] in known["authModes"]["allowedValue"]
    required = {name for name, each in known.items() if not each.get("optional") and "default" not in each}
    assert required <= trigger["metadata"].keys()
    spec = scaled["TriggerAuthentication"]["spec"]
    given = {each["parameter"] for source in spec.values() for each in source}
    assert given == {"bearerToken", "ca"}
    assert all(known[name].get("triggerAuthenticationVariableReadable") for name in given)
