"""The chart: what is rendered of which values, and what is refused. No cluster."""

import json
import re
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from magnetar.pipelines import process_metrics, projector_metrics, worker_metrics
from magnetar.pipelines.chart import values_of
from magnetar.pipelines.worker import WorkerOptions
from prometheus_client import Counter, Gauge, Histogram

from tests.docs.pages import ROOT
from tests.helm.conftest import Chart, Objects, Values, lines_of, minimal, written
from tests.unit.pipelines.purses import purses

TOKEN = {"url": "pulsar+ssl://pulsar:6651", "adminUrl": "https://pulsar:8443", "auth": {"token": "secret"}}
SECRET = TOKEN | {"auth": {"existingSecret": "jwt", "key": "jwt"}, "tls": {"caConfigMap": "authority"}}
SERVER = {
    "url": "https://clickhouse:8443",
    "user": "projector",
    "auth": {"existingSecret": "writer"},
    "tls": {"caConfigMap": "authority"},
}
TLS_SECRETS = {
    "pulsar": TOKEN | {"tls": {"caSecret": "brokers-tls", "key": "root.pem"}},
    "clickhouse": SERVER | {"tls": {"caSecret": "server-tls"}},
}
EVERYTHING = {
    "clickhouse": SERVER,
    "rebuild": {"enabled": True},
    "pulsar": SECRET | {"roles": {"worker": "{context}-{aggregate}", "projector": "p", "client": "c"}},
    "workerDefaults": {
        "autoscaling": {"enabled": True},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "x"}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
}
MATRIX: dict[str, Values] = {
    "minimal": {},
    "token": {"pulsar": TOKEN},
    "existing secret and authority": {"pulsar": SECRET},
    "everything": EVERYTHING,
    "a ClickHouse server": {"clickhouse": {"url": "http://clickhouse:8123"}},
    "a ClickHouse server with a password": {"clickhouse": SERVER | {"auth": {"password": "secret"}, "tls": {}}},
    "projectors that share the work": {"clickhouse": SERVER, "projector": {"replicas": 3}},
    "groups of tables": {"clickhouse": SERVER, "projectors": {"boards": {"tables": ["Board"]}}},
    "groups of tables alone": {
        "clickhouse": SERVER,
        "projector": {"enabled": False},
        "projectors": {"boards": {"tables": ["Board"], "replicas": 2}, "events": {"tables": ["Order", "StockItem"]}},
    },
    "no projector": {"projector": {"enabled": False}},
    "a token for workers alone, and no other": {
        "workerDefaults": {"auth": {"existingSecret": "jwt"}, "env": [{"name": "A", "value": "b"}]}
    },
    "an administrator's token for the Job": {"pulsar": SECRET, "provision": {"auth": {"existingSecret": "admin"}}},
    "Jobs on nodes of their own": {
        "clickhouse": SERVER,
        "rebuild": {"enabled": True},
        "jobs": {"tolerations": [{"key": "x"}], "nodeSelector": {"disk": "ssd"}, "env": [{"name": "A", "value": "b"}]},
    },
    "nothing beside workers": {
        name: {"enabled": False} for name in ("projector", "provision", "podDisruptionBudget", "networkPolicy")
    },
    "authorities in Secrets": TLS_SECRETS,
    "digest": {"image": {"repository": "r/shop", "digest": "sha256:" + "0" * 64}},
}
matrix = pytest.mark.parametrize("changes", MATRIX.values(), ids=MATRIX)


JOB_AND_POLICY = (("Job", "rel-provision"), ("NetworkPolicy", "rel-provision"))
CONTAINERS = ("initContainers", "containers")


def pods(objects: Objects) -> dict[str, Any]:
    """The specification of each pod that an object makes or is, by the object's name."""
    return {
        name: o["spec"] if kind == "Pod" else o["spec"]["template"]["spec"]
        for (kind, name), o in objects.items()
        if kind in {"Deployment", "StatefulSet", "Job", "Pod"}
    }


def containers(pod: Any) -> list[Any]:
    return [*pod["containers"], *pod.get("initContainers", [])]


@matrix
def test_the_linter_has_nothing_to_say(chart: Chart, changes: Values) -> None:
    assert chart.lint(minimal(**changes)) == []


@matrix
def test_every_object_is_one_that_kubernetes_knows(chart: Chart, changes: Values) -> None:
    for (kind, _), rendered in chart.render(minimal(**changes)).items():
        if rendered["apiVersion"].split("/")[0] not in {"keda.sh", "monitoring.coreos.com"}:
            kubernetes_validate.validate(rendered, "1.37", strict=True)
        else:
            assert kind in {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"}


@matrix
def test_every_pod_is_as_restricted_as_the_strictest_standard_asks(chart: Chart, changes: Values) -> None:
    for name, pod in pods(chart.render(minimal(**changes))).items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert "cpu" not in container["resources"]["limits"], name


@matrix
def test_what_a_pod_mounts_is_there(chart: Chart, changes: Values) -> None:
    objects = chart.render(minimal(**changes))
    theirs = {"jwt", "admin", "authority", "writer", "brokers-tls", "server-tls"}
    made = {name for kind, name in objects if kind in {"Secret", "ConfigMap"}}
    for name, pod in pods(objects).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claims = {"data"} if name == "rel-projector" else set()
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys() | claims
            assert {source["configMapRef"]["name"] for source in container.get("envFrom", [])} <= made
        for volume in volumes.values():
            named = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
            assert named is None or named in made | theirs


def test_each_aggregate_has_a_deployment_that_decides_for_it_alone(chart: Chart) -> None:
    objects = chart.render(minimal())
    for name, aggregate in (("order", "Order"), ("stock-item", "StockItem")):
        deployment = objects["Deployment", f"rel-worker-{name}"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["args"] == [
            *("run", "shop.pipeline", "--role", "worker", "--aggregate", aggregate, "--log-level", "info")
        ]
        assert deployment["spec"]["replicas"] == 2
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert objects["PodDisruptionBudget", f"rel-worker-{name}"]["spec"]["maxUnavailable"] == 1


def test_derived_values_leave_the_replicas_to_the_defaults_of_all_workers(chart: Chart) -> None:
    derived = values_of(purses, "purses.pipeline", url="pulsar://p", admin_url="http://p", tenant="public", image="p:1")
    edited = yaml.safe_load(derived)
    edited["workerDefaults"]["replicas"] = 1
    edited["workers"]["door"]["replicas"] = 2
    objects = chart.render(edited)
    assert objects["Deployment", "rel-worker-purse"]["spec"]["replicas"] == 1
    assert objects["Deployment", "rel-worker-door"]["spec"]["replicas"] == 2, "what a worker says itself"


PROJECTORS = {"clickhouse": SERVER, "projector": {"replicas": 3, "terminationGracePeriodSeconds": 90}}


def test_projectors_that_share_the_work_are_spread_over_nodes_and_drained_one_at_a_time(chart: Chart) -> None:
    objects = chart.render(minimal(**PROJECTORS))
    pod = objects["Deployment", "rel-projector"]["spec"]["template"]
    assert objects["Deployment", "rel-projector"]["spec"]["replicas"] == 3
    budget = objects["PodDisruptionBudget", "rel-projector"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert budget["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    alone = chart.render(minimal())
    assert ("PodDisruptionBudget", "rel-projector") not in alone, "of one there is nothing to keep"
    unprotected = chart.render(minimal(**PROJECTORS, podDisruptionBudget={"enabled": False}))
    assert not [name for kind, name in unprotected if kind == "PodDisruptionBudget"]


GROUPS = {
    "clickhouse": SERVER,
    "projector": {"terminationGracePeriodSeconds": 90, "nodeSelector": {"disk": "ssd"}},
    "projectors": {
        "boards": {"tables": ["Board", "Late"], "replicas": 3, "resources": {"limits": {"memory": "9Gi"}}},
        "stock": {"tables": ["StockItem"]},
    },
}


def test_each_group_of_tables_has_a_deployment_that_fills_them_alone(chart: Chart) -> None:
    objects = chart.render(minimal(**GROUPS))
    names = {"rel-projector-boards", "rel-projector-stock", "rel-projector"}
    assert {name for kind, name in objects if kind == "Deployment"} >= names
    assert {name for kind, name in objects if kind == "PodDisruptionBudget"} >= names
    first = ("run", "shop.pipeline", "--role", "projector")
    others = [each for table in ("Board", "Late", "StockItem") for each in ("--without-table", table)]
    for name, tables, replicas, memory in (
        ("boards", ["--table", "Board", "--table", "Late"], 3, "9Gi"),
        ("stock", ["--table", "StockItem"], 1, "6Gi"),
        ("", others, 1, "6Gi"),
    ):
        spec = objects["Deployment", f"rel-projector-{name}".rstrip("-")]["spec"]
        pod = spec["template"]["spec"]
        assert pod["containers"][0]["args"] == [*first, *tables, "--log-level", "info"]
        assert (spec["replicas"], spec["strategy"]) == (replicas, {"type": "Recreate"})
        assert pod["containers"][0]["resources"] == {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {"memory": memory},
        }
        assert (pod["terminationGracePeriodSeconds"], pod["nodeSelector"]) == (90, {"disk": "ssd"})
    (provision,) = objects["Job", "rel-provision"]["spec"]["template"]["spec"]["initContainers"]
    told = {each["name"]: each["value"] for each in provision["env"]}
    assert json.loads(told["MAGNETAR_CHART_VALUES"])["projectors"] == {
        "boards": {"tables": ["Board", "Late"]},
        "stock": {"tables": ["StockItem"]},
    }


def test_the_groups_that_the_docs_show_are_taken(chart: Chart) -> None:
    objects = chart.render(minimal(clickhouse=SERVER, **written("operations.md", "projectors")))
    boards, rest = (objects["Deployment", f"rel-projector{name}"]["spec"] for name in ("-boards", ""))
    assert (boards["replicas"], rest["replicas"]) == (2, 1)
    limits = [o["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] for o in (boards, rest)]
    assert limits == ["8Gi", "4Gi"]


def test_without_a_projector_of_the_rest_the_notes_and_the_alert_speak_of_a_groups(chart: Chart) -> None:
    alone = minimal(**GROUPS | {"projector": {"enabled": False}, "prometheusRule": {"enabled": True}})
    objects = chart.render(alone)
    assert ("Deployment", "rel-projector") not in objects
    assert "MagnetarNobodyFeeds" in json.dumps(objects["PrometheusRule", "rel"])
    said = chart.notes(alone, is_upgrade=True)
    assert "exec deployment/rel-projector-boards -- magnetar status" in said
    assert "exec deployment/rel-projector-boards -- magnetar rebuild" in said
    assert ", and 2 Deployment(s) of projectors with tables of their own." in said


def test_pods_of_a_deployment_are_spread_among_themselves_alone(chart: Chart) -> None:
    objects = chart.render(minimal(**PROJECTORS))
    deployments = {name: o["spec"]["template"] for (kind, name), o in objects.items() if kind == "Deployment"}
    assert deployments.keys() == {"rel-worker-order", "rel-worker-stock-item", "rel-projector"}
    for name, pod in deployments.items():
        (spread,) = pod["spec"]["topologySpreadConstraints"]
        assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway", "a cluster of one node runs them too"
        labels = spread["labelSelector"]["matchLabels"].items()
        assert [other for other, o in deployments.items() if labels <= o["metadata"]["labels"].items()] == [name]


def test_pods_have_the_time_to_end_that_the_values_give_and_longer_than_a_flush(chart: Chart) -> None:
    def seconds(**changes: Any) -> dict[str, int]:
        return {
            name: pod["terminationGracePeriodSeconds"]
            for name, pod in pods(chart.render(minimal(**changes))).items()
            if "terminationGracePeriodSeconds" in pod
        }

    assert seconds() == {"rel-worker-order": 60, "rel-worker-stock-item": 60, "rel-projector": 120}
    assert min(seconds().values()) > WorkerOptions().append_timeout_seconds
    workers = minimal()["workers"]
    workers["order"]["terminationGracePeriodSeconds"] = 70
    assert seconds(workers=workers, **PROJECTORS) == {
        "rel-worker-order": 70,
        "rel-worker-stock-item": 60,
        "rel-projector": 90,
    }


@matrix
def test_all_that_runs_is_of_one_account_that_has_no_token(chart: Chart, changes: Values) -> None:
    objects = chart.render(minimal(**changes))
    assert [name for kind, name in objects if kind == "ServiceAccount"] == ["rel"]
    assert objects["ServiceAccount", "rel"]["automountServiceAccountToken"] is False
    accounts = {name: pod.get("serviceAccountName", "default") for name, pod in pods(objects).items()}
    assert accounts.pop("rel-provision", "default") == "default", "the hook runs before there is one"
    assert set(accounts.values()) == {"rel"}


@matrix
def test_one_service_shows_the_figures_of_every_worker_and_projector(chart: Chart, changes: Values) -> None:
    objects = chart.render(minimal(**changes))
    ((kind, name),) = (key for key in objects if key[0] == "Service")
    spec = objects[kind, name]["spec"]
    assert (name, spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("rel-health", "None", True)
    assert [(port["port"], port["targetPort"]) for port in spec["ports"]] == [(8790, "health")]
    for (kind, name), rendered in objects.items():
        if kind in {"Deployment", "StatefulSet"}:
            template = rendered["spec"]["template"]
            assert spec["selector"].items() <= template["metadata"]["labels"].items(), name
            (container,) = template["spec"]["containers"]
            assert [port["name"] for port in container["ports"]] == ["health"], name
        if kind == "StatefulSet":
            assert rendered["spec"]["serviceName"] == "rel-health"


def test_a_workers_own_values_win_over_the_defaults(chart: Chart) -> None:
    workers = minimal()["workers"]
    workers["order"] |= {"replicas": 4, "resources": {"limits": {"memory": "8Gi"}}}
    objects = chart.render(minimal(workers=workers))
    order, stock = objects["Deployment", "rel-worker-order"], objects["Deployment", "rel-worker-stock-item"]
    assert (order["spec"]["replicas"], stock["spec"]["replicas"]) == (4, 2)
    limits = [o["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] for o in (order, stock)]
    assert limits == ["8Gi", "2Gi"]


def test_the_selectors_of_two_deployments_do_not_overlap(chart: Chart) -> None:
    objects = chart.render(minimal())
    selectors = [
        o["spec"]["selector"]["matchLabels"]
        for (kind, _), o in objects.items()
        if kind in {"Deployment", "StatefulSet"}
    ]
    assert len({json.dumps(selector, sort_keys=True) for selector in selectors}) == len(selectors) == 3


def test_a_token_in_the_values_stands_in_secrets_alone(chart: Chart) -> None:
    objects = chart.render(minimal(pulsar=TOKEN))
    encoded = "c2VjcmV0"
    assert [key for key, o in objects.items() if encoded in json.dumps(o)] == [
        key for key in objects if key[0] == "Secret"
    ]
    assert "secret" not in json.dumps([o.get("data") for (kind, _), o in objects.items() if kind == "ConfigMap"])


def test_a_new_token_makes_the_pods_anew(chart: Chart) -> None:
    def checksum(token: str) -> str:
        objects = chart.render(minimal(pulsar=TOKEN | {"auth": {"token": token}}))
        annotations = objects["Deployment", "rel-worker-order"]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/settings"])

    assert checksum("a") != checksum("b")
    assert checksum("a") == checksum("a")


def test_what_leads_to_clickhouse_makes_the_projector_anew_and_no_worker(chart: Chart) -> None:
    def template(name: str, **changes: Any) -> Any:
        return chart.render(minimal(**changes))["Deployment", name]["spec"]["template"]

    first = SERVER | {"auth": {"password": "a"}}
    changes: list[Values] = [{"auth": {"password": "b"}}, {"user": "other"}, {"url": "https://c:9443"}, {"tls": {}}]
    for changed in changes:
        before, after = {"clickhouse": first}, {"clickhouse": first | changed}
        assert template("rel-projector", **before) != template("rel-projector", **after), changed
        assert template("rel-worker-order", **before) == template("rel-worker-order", **after), changed
    assert template("rel-worker-order") == template("rel-worker-order", clickhouse=first)


def test_the_topics_are_provisioned_and_examined_before_anything_is_installed_or_upgraded(chart: Chart) -> None:
    job = chart.render(minimal())["Job", "rel-provision"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert [c["args"][0] for c in (*pod["initContainers"], *pod["containers"])] == ["provision", "doctor"]
    settings = chart.render(minimal())["ConfigMap", "rel-settings"]["data"]
    (provision,), (doctor,) = ([{e["name"]: e["value"] for e in c["env"]} for c in pod[k]] for k in CONTAINERS)
    derived = json.loads(provision.pop("MAGNETAR_CHART_VALUES"))
    assert provision == doctor == settings
    assert derived == {
        "pipeline": {"context": "shop", "partitions": 4},
        "workers": minimal()["workers"],
        "projector": {"enabled": True},
        "projectors": {},
    }


def test_the_tables_on_a_server_are_provisioned_and_examined_too(chart: Chart) -> None:
    pod = chart.render(minimal(clickhouse=SERVER))["Job", "rel-provision"]["spec"]["template"]["spec"]
    for container in containers(pod):
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        assert given["MAGNETAR_CLICKHOUSE"] == "https://clickhouse:8443", container["name"]
        assert given["MAGNETAR_CLICKHOUSE_PASSWORD_FILE"] == "/etc/magnetar/clickhouse/password"
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/etc/magnetar/clickhouse", "/etc/magnetar/clickhouse-ca"} <= mounts, container["name"]


def test_every_pod_that_is_led_to_clickhouse_is_told_its_cluster(chart: Chart) -> None:
    clustered = SERVER | {"cluster": "main"}
    values = minimal(**GROUPS | {"clickhouse": clustered, "rebuild": {"enabled": True}})
    led = [
        (name, {entry["name"]: entry["value"] for entry in container.get("env", [])})
        for name, pod in pods(chart.render(values)).items()
        for container in containers(pod)
        if "MAGNETAR_CLICKHOUSE" in json.dumps(container)
    ]
    assert {name for name, _ in led} == {
        *("rel-provision", "rel-rebuild-2", "rel-test-doctor"),
        *("rel-projector", "rel-projector-boards", "rel-projector-stock"),
    }
    for name, given in led:
        assert given["MAGNETAR_CLICKHOUSE_CLUSTER"] == "main", name
        named = json.loads(given["MAGNETAR_CHART_SETTINGS_CLICKHOUSE"])
        assert named["MAGNETAR_CLICKHOUSE_CLUSTER"] == "clickhouse.cluster", name


@matrix
def test_what_dies_is_started_again_and_the_projector_with_its_tables(chart: Chart, changes: Values) -> None:
    objects = chart.render(minimal(**changes))
    for (kind, name), rendered in objects.items():
        if kind in {"Deployment", "StatefulSet"}:
            assert rendered["spec"]["template"]["spec"].get("restartPolicy", "Always") == "Always", name
        if kind == "Job":  # both of its steps may be repeated from the first
            assert rendered["spec"]["template"]["spec"]["restartPolicy"] == "Never"
            assert rendered["spec"]["backoffLimit"] >= 2
    if ("StatefulSet", "rel-projector") in objects:
        spec = objects["StatefulSet", "rel-projector"]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        data = mounted[objects["ConfigMap", "rel-settings"]["data"]["MAGNETAR_DATA"]]
        assert [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == [data]
        assert "persistentVolumeClaimRetentionPolicy" not in spec, "the claim outlives pods and releases"


def test_with_a_server_the_projector_has_no_volume_and_a_job_rebuilds_what_has_changed(chart: Chart) -> None:
    objects = chart.render(minimal(clickhouse=SERVER, rebuild={"enabled": True}))
    projector = objects["Deployment", "rel-projector"]
    assert projector["spec"]["strategy"] == {"type": "Recreate"}, "old code and new code would not go together"
    assert "volumeClaimTemplates" not in projector["spec"]
    job = objects["Job", "rel-rebuild-2"]
    assert "annotations" not in job["metadata"], "no hook: helm would wait for it"
    asked = {
        "MAGNETAR_CLICKHOUSE": "https://clickhouse:8443",
        "MAGNETAR_CLICKHOUSE_USER": "projector",
        "MAGNETAR_CLICKHOUSE_PASSWORD_FILE": "/etc/magnetar/clickhouse/password",
        "MAGNETAR_CLICKHOUSE_CA": "/etc/magnetar/clickhouse-ca/ca.crt",
    }
    for each in (projector, job):
        (container,) = each["spec"]["template"]["spec"]["containers"]
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        named = json.loads(given.pop("MAGNETAR_CHART_SETTINGS_CLICKHOUSE"))
        assert named.keys() == asked.keys() | {"MAGNETAR_CLICKHOUSE_CLUSTER"}
        assert given == asked
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/etc/magnetar/clickhouse", "/etc/magnetar/clickhouse-ca", "/var/lib/magnetar"} <= mounts
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["rebuild", "shop.pipeline", "--changed"]
    named = chart.render(minimal(clickhouse=SERVER, rebuild={"enabled": True, "names": ["Board"]}))
    args = named["Job", "rel-rebuild-2"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args == ["rebuild", "shop.pipeline", "Board"]
    (worker,) = pods({("Deployment", "w"): objects["Deployment", "rel-worker-order"]})["w"]["containers"]
    assert "CLICKHOUSE" not in json.dumps(worker), "who decides has no use for it"
    *_, egress = objects["NetworkPolicy", "rel"]["spec"]["egress"]
    assert egress == {"ports": [{"port": 8443, "protocol": "TCP"}]}


def test_of_a_secret_with_an_authority_its_certificate_alone_is_mounted(chart: Chart) -> None:
    asked = TLS_SECRETS | {"workerDefaults": {"autoscaling": {"enabled": True}}, "rebuild": {"enabled": True}}
    objects = chart.render(minimal(**asked))
    assert objects["ConfigMap", "rel-settings"]["data"]["MAGNETAR_TLS_CA"] == "/etc/magnetar/ca/root.pem"
    for name, pod in pods(objects).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        found = volumes["ca"]["secret"]
        assert (found["secretName"], found["items"]) == ("brokers-tls", [{"key": "root.pem", "path": "root.pem"}]), name
        mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted["/etc/magnetar/ca"] == "ca", name
        if "worker" not in name:
            found = volumes["clickhouse-ca"]["secret"]
            assert (found["secretName"], found["items"]) == ("server-tls", [{"key": "ca.crt", "path": "ca.crt"}]), name
            env = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
            assert env["MAGNETAR_CLICKHOUSE_CA"] == "/etc/magnetar/clickhouse-ca/ca.crt", name
            assert mounted["/etc/magnetar/clickhouse-ca"] == "clickhouse-ca", name
    authentication = objects["TriggerAuthentication", "rel-worker-stock-item"]["spec"]
    assert authentication["secretTargetRef"][1] == {"parameter": "ca", "name": "brokers-tls", "key": "root.pem"}
    assert "configMapTargetRef" not in authentication


def test_clickhouses_password_stands_in_a_secret_alone(chart: Chart) -> None:
    objects = chart.render(minimal(clickhouse=SERVER | {"auth": {"password": "secret"}}))
    encoded = "c2VjcmV0"
    assert [key for key, o in objects.items() if encoded in json.dumps(o)] == [
        ("Secret", "rel-provision-clickhouse"),
        ("Secret", "rel-clickhouse"),
    ]
    assert not [
        key for key, o in objects.items() if key[0] != "Secret" and '"secret"' in json.dumps(o).replace('"secret":', "")
    ]


def test_scaling_follows_the_backlog_and_stops_at_the_partitions(chart: Chart) -> None:
    objects = chart.render(minimal(**EVERYTHING))
    scaled = objects["ScaledObject", "rel-worker-stock-item"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 4)
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "pulsar"
    assert trigger["metadata"]["topic"] == "persistent://public/shop/stock-item-commands"
    assert trigger["metadata"]["subscription"] == "magnetar"
    assert trigger["authenticationRef"] == {"name": "rel-worker-stock-item"}
    authentication = objects["TriggerAuthentication", "rel-worker-stock-item"]["spec"]
    assert authentication["secretTargetRef"] == [{"parameter": "bearerToken", "name": "jwt", "key": "jwt"}]
    assert authentication["configMapTargetRef"] == [{"parameter": "ca", "name": "authority", "key": "ca.crt"}]
    assert "replicas" not in objects["Deployment", "rel-worker-stock-item"]["spec"]


def test_what_scales_a_worker_asks_with_that_workers_token(chart: Chart) -> None:
    values = minimal(workerDefaults={"autoscaling": {"enabled": True}})
    values["workers"]["stock-item"]["auth"] = {"existingSecret": "own", "key": "k"}
    objects = chart.render(values)
    name = "rel-worker-stock-item"
    assert [each for kind, each in objects if kind == "TriggerAuthentication"] == [name]
    (target,) = objects["TriggerAuthentication", name]["spec"]["secretTargetRef"]
    assert target == {"parameter": "bearerToken", "name": "own", "key": "k"}
    (trigger,) = objects["ScaledObject", name]["spec"]["triggers"]
    assert (trigger["metadata"]["authModes"], trigger["authenticationRef"]) == ("bearer", {"name": name})


def test_the_network_is_closed_but_for_the_figures_and_pulsar(chart: Chart) -> None:
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    policy = chart.render(minimal(networkPolicy={"pulsarTo": peers, "pulsarPorts": [6651]}))["NetworkPolicy", "rel"]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == [8790]
    dns, pulsar = policy["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert pulsar == {"ports": [{"port": port, "protocol": "TCP"} for port in (6651, 6650, 8080)], "to": peers}


@pytest.mark.parametrize(
    ("url", "port"),
    {
        "https://clickhouse:9440": 9440,
        "https://clickhouse.example/": 8443,
        "http://clickhouse": 8123,
        "http://clickhouse:80/": 80,
    }.items(),
)
def test_the_network_is_open_to_the_port_of_clickhouses_address(chart: Chart, url: str, port: int) -> None:
    def egress(**policy: Any) -> list[int]:
        asked = minimal(clickhouse={"url": url}, networkPolicy=policy)
        *_, found = chart.render(asked)["NetworkPolicy", "rel"]["spec"]["egress"]
        return [each["port"] for each in found["ports"]]

    assert egress() == [port]
    assert egress(clickhousePorts=[9000]) == [9000, port], "the Service's pods may have another"


@pytest.mark.parametrize(
    ("url", "admin", "ports"),
    [
        ("pulsar://pulsar:7650", "http://pulsar:9080/", [7650, 9080]),
        ("pulsar+ssl://pulsar", "https://pulsar/pulsar", [6651, 443]),
        ("pulsar://a:7650,b", "http://pulsar", [7650, 6650, 80]),
    ],
)
def test_the_network_is_open_to_the_ports_of_pulsars_addresses(
    chart: Chart, url: str, admin: str, ports: list[int]
) -> None:
    asked = minimal(pulsar={"url": url, "adminUrl": admin}, networkPolicy={"pulsarPorts": []})
    _, found = chart.render(asked)["NetworkPolicy", "rel"]["spec"]["egress"]
    assert [each["port"] for each in found["ports"]] == ports


def test_a_prometheus_elsewhere_is_let_in_as_the_docs_say(chart: Chart) -> None:
    (elsewhere,) = chart.render(minimal(**written("kubernetes.md", "networkPolicy")))["NetworkPolicy", "rel"]["spec"][
        "ingress"
    ]
    assert elsewhere["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    (without,) = chart.render(minimal())["NetworkPolicy", "rel"]["spec"]["ingress"]
    assert without["from"] == [{"podSelector": {}}], "every pod of the release's namespace"


def test_the_way_of_the_job_that_provisions_is_open_before_the_releases_policy_is_there(chart: Chart) -> None:
    objects = chart.render(minimal(clickhouse={"url": "http://clickhouse:8123"}))
    own, its = objects["NetworkPolicy", "rel"]["spec"], objects["NetworkPolicy", "rel-provision"]
    assert its["spec"]["egress"] == own["egress"]
    assert "ingress" not in its["spec"]
    labels = objects["Job", "rel-provision"]["spec"]["template"]["metadata"]["labels"]
    assert its["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    weights = [int(objects[key]["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for key in JOB_AND_POLICY]
    assert weights == sorted(weights, reverse=True)


def test_who_provisions_can_have_a_token_that_nobody_else_has(chart: Chart) -> None:
    objects = chart.render(minimal(pulsar=SECRET, provision={"auth": {"existingSecret": "admin", "key": "jwt2"}}))
    secrets = {
        name: {volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "token"}
        for name, pod in pods(objects).items()
    }
    assert secrets.pop("rel-provision") == {"admin"}
    assert set().union(*secrets.values()) == {"jwt"}
    for container in containers(objects["Job", "rel-provision"]["spec"]["template"]["spec"]):
        given = {each["name"]: each["value"] for each in container["env"]}
        assert given["MAGNETAR_TOKEN_FILE"] == "/etc/magnetar/token/jwt2"
        named = json.loads(given["MAGNETAR_CHART_SETTINGS"])["MAGNETAR_TOKEN_FILE"]
        assert named == "provision.auth.existingSecret (the key jwt2 of the Secret admin)"


def test_each_deployment_can_have_a_token_of_its_own(chart: Chart) -> None:
    workers = minimal()["workers"]
    workers["order"]["auth"] = {"existingSecret": "orders", "key": "jwt2"}
    groups = {"boards": {"tables": ["Board"], "auth": {"existingSecret": "boards"}}, "late": {"tables": ["Late"]}}
    projector = {"auth": {"existingSecret": "reading"}}
    objects = chart.render(
        minimal(pulsar=SECRET, clickhouse=SERVER, workers=workers, projector=projector, projectors=groups)
    )
    for name, (secret, key, at) in {
        "rel-worker-order": ("orders", "jwt2", "workers.order.auth"),
        "rel-worker-stock-item": ("jwt", "jwt", "pulsar.auth"),
        "rel-projector": ("reading", "token", "projector.auth"),
        "rel-projector-boards": ("boards", "token", "projectors.boards.auth"),
        "rel-projector-late": ("reading", "token", "projector.auth"),
    }.items():
        pod = pods(objects)[name]
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "token")
        assert volume["secret"]["secretName"] == secret
        given = dict(objects["ConfigMap", "rel-settings"]["data"])
        given |= {each["name"]: each["value"] for each in pod["containers"][0].get("env", [])}
        assert given["MAGNETAR_TOKEN_FILE"] == f"/etc/magnetar/token/{key}"
        named = json.loads(given["MAGNETAR_CHART_SETTINGS"])["MAGNETAR_TOKEN_FILE"]
        assert named == f"{at}.existingSecret (the key {key} of the Secret {secret})"


def test_jobs_are_placed_and_given_what_the_values_say(chart: Chart) -> None:
    objects = chart.render(minimal(**MATRIX["Jobs on nodes of their own"]))
    of_jobs = [objects[key] for key in (("Job", "rel-provision"), ("Job", "rel-rebuild-2"), ("Pod", "rel-test-doctor"))]
    for each in (job["spec"] if job["kind"] == "Pod" else job["spec"]["template"]["spec"] for job in of_jobs):
        assert (each["tolerations"], each["nodeSelector"]) == ([{"key": "x"}], {"disk": "ssd"})
        assert all({"name": "A", "value": "b"} in container["env"] for container in containers(each))
    assert "tolerations" not in objects["Deployment", "rel-worker-order"]["spec"]["template"]["spec"]


def test_all_that_the_values_of_the_docs_name_is_made_by_the_lines_above_them(chart: Chart) -> None:
    values = written("kubernetes.md", "clickhouse")
    assert chart.lint(values) == []
    made = {}
    for line in lines_of("kubernetes.md", "kubectl --namespace shop create secret"):
        name, *given = line.removeprefix("kubectl --namespace shop create secret ").split()[1:]
        made[name] = {each.split("=")[1] for each in given if each.startswith("--from-file=")}
    named = set()
    for pod in pods(chart.render(values, name="shop")).values():
        named |= {each["name"] for each in pod["imagePullSecrets"]}
        for secret in (volume["secret"] for volume in pod["volumes"] if "secret" in volume):
            named.add(secret["secretName"])
            assert {each["key"] for each in secret.get("items", [])} <= made[secret["secretName"]]
    assert named == made.keys()
    assert made["shop-pulsar"] == {values["pulsar"]["auth"]["key"]}
    assert made["shop-clickhouse"] == {values["clickhouse"]["auth"]["key"]}


def test_what_the_docs_restart_for_a_new_password_is_what_has_it(chart: Chart) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    objects = chart.render(written("kubernetes.md", "clickhouse"), name="shop")
    have = {name for (kind, name), o in objects.items() if kind == "Deployment" and "shop-clickhouse" in json.dumps(o)}
    (line,) = re.findall(r"`kubectl --namespace shop rollout restart ([^`]*)`", page)
    assert {each.removeprefix("deployment/") for each in line.split()} == have


def test_probes_ask_what_they_mean_and_outlast_no_grace_period(chart: Chart) -> None:
    objects = chart.render(minimal(health={"port": 9000, "startSeconds": 61}))
    for kind, name in (("Deployment", "rel-worker-order"), ("StatefulSet", "rel-projector")):
        (container,) = objects[kind, name]["spec"]["template"]["spec"]["containers"]
        paths = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
        assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
        assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 61
        assert container["ports"] == [{"name": "health", "containerPort": 9000}]


CLUSTER = [{"name": "MAGNETAR_CLICKHOUSE_CLUSTER", "value": "main"}]
REFUSED: dict[str, tuple[Values, str]] = {
    "a misspelled value": ({"pipelines": {}}, "pipelines"),
    "a misspelled value within": ({"image": {"repositry": "x", "repository": "x"}}, "repositry"),
    "a misspelled value of a worker": ({"workers": {"order": {"aggregate": "Order", "replica": 2}}}, "replica"),
    "a topic of another tenant": (
        {"pulsar": {"url": "pulsar://p:6650", "adminUrl": "http://p:8080", "tenant": "acme"}},
        "and pulsar.tenant is acme: derive the values anew",
    ),
    "a variable that the chart sets": (
        {"workerDefaults": {"env": [{"name": "MAGNETAR_BROKER", "value": "pulsar://q:6650"}]}},
        "workerDefaults.env has MAGNETAR_BROKER",
    ),
    "a misspelled toleration": ({"workerDefaults": {"tolerations": [{"key": "x", "efect": "NoSchedule"}]}}, "efect"),
    "a misspelled affinity": ({"projector": {"affinity": {"nodeAfinity": {}}}}, "nodeAfinity"),
    "a variable that is a number": ({"workerDefaults": {"env": [{"name": "A", "value": 1}]}}, "value"),
    "a number that is none": ({"workerDefaults": {"replicas": "two"}}, "replicas"),
    "a boolean that is none": ({"serviceMonitor": {"enabled": "yes"}}, "enabled"),
    "no module": ({"pipeline": {"module": "", "context": "shop", "partitions": 4}}, "module"),
    "no broker": ({"pulsar": {"url": "", "adminUrl": "http://p:8080"}}, "url"),
    "a broker's address of another kind": ({"pulsar": {"url": "http://p:6650", "adminUrl": "http://p"}}, "url"),
    "a password in the broker's address": (
        {"pulsar": {"url": "pulsar://me:secret@p:6650", "adminUrl": "http://p:8080"}},
        "pulsar.url has a user or a password in it",
    ),
    "a password in the admin's address": (
        {"pulsar": {"url": "pulsar://p:6650", "adminUrl": "https://me:secret@p:8443"}},
        "pulsar.adminUrl has a user or a password in it",
    ),
    "no workers": ({"workers": {}}, "workers"),
    "a worker that decides for nothing": ({"workers": {"order": {"replicas": 1}}}, "aggregate"),
    "a memory that is none": ({"projector": {"resources": {"limits": {"memory": "lots"}}}}, "memory"),
    "a log level that there is not": ({"logLevel": "verbose"}, "logLevel"),
    "a time shorter than a flush": ({"workerDefaults": {"terminationGracePeriodSeconds": 5}}, "terminationGrace"),
    "no image tag": ({"image": {"repository": "r/shop"}}, "image.tag or image.digest"),
    "more replicas than partitions": (
        {"workers": {"order": {"aggregate": "Order", "replicas": 5}}},
        "workers.order.replicas is 5, and there are 4 partitions",
    ),
    "two tokens": (
        {"pulsar": TOKEN | {"auth": {"token": "a", "existingSecret": "b"}}},
        "pulsar.auth.token and pulsar.auth.existingSecret are both set",
    ),
    "a ClickHouse that is none": ({"clickhouse": {"url": "clickhouse:8443"}}, "url"),
    "a password in ClickHouse's address": (
        {"clickhouse": {"url": "https://me:secret@clickhouse:8443"}},
        "clickhouse.url has a user or a password in it",
    ),
    "a cluster without a server": ({"clickhouse": {"cluster": "main"}}, "clickhouse.cluster needs clickhouse.url"),
    "a cluster's name that is none": ({"clickhouse": SERVER | {"cluster": "a b"}}, "cluster"),
    "a cluster that the Jobs are not told": (
        {"clickhouse": SERVER, "projector": {"env": CLUSTER}},
        "projector.env has MAGNETAR_CLICKHOUSE_CLUSTER: set clickhouse.cluster",
    ),
    "a group's cluster that the Jobs are not told": (
        {"clickhouse": SERVER, "projectors": {"boards": {"tables": ["Board"], "env": CLUSTER}}},
        "projectors.boards.env has MAGNETAR_CLICKHOUSE_CLUSTER: set clickhouse.cluster",
    ),
    "two passwords": (
        {"clickhouse": SERVER | {"auth": {"password": "a", "existingSecret": "b"}}},
        "clickhouse.auth.password and clickhouse.auth.existingSecret are both set",
    ),
    "two authorities for Pulsar": (
        {"pulsar": TOKEN | {"tls": {"caConfigMap": "a", "caSecret": "b"}}},
        "pulsar.tls.caConfigMap and pulsar.tls.caSecret are both set",
    ),
    "two authorities for ClickHouse": (
        {"clickhouse": SERVER | {"tls": {"caConfigMap": "a", "caSecret": "b"}}},
        "clickhouse.tls.caConfigMap and clickhouse.tls.caSecret are both set",
    ),
    "a misspelled authority": ({"pulsar": TOKEN | {"tls": {"caSecrets": "a"}}}, "caSecrets"),
    "a rebuild without a server": ({"rebuild": {"enabled": True}}, "rebuild.enabled needs clickhouse.url"),
    "projectors without a server": ({"projector": {"replicas": 2}}, "projector.replicas needs clickhouse.url"),
    "more projectors than partitions": (
        {"clickhouse": SERVER, "projector": {"replicas": 5}},
        "projector.replicas is 5, and there are 4 partitions",
    ),
    "groups without a server": (
        {"projectors": {"boards": {"tables": ["Board"]}}},
        "projectors needs clickhouse.url",
    ),
    "a table in two groups": (
        {"clickhouse": SERVER, "projectors": {"a": {"tables": ["Board"]}, "b": {"tables": ["Late", "Board"]}}},
        "projectors.b.tables has Board, and projectors.a.tables has it too",
    ),
    "a table twice in a group": ({"clickhouse": SERVER, "projectors": {"a": {"tables": ["B", "B"]}}}, "tables"),
    "a group with no table": ({"clickhouse": SERVER, "projectors": {"a": {"tables": []}}}, "tables"),
    "a group that names no tables": ({"clickhouse": SERVER, "projectors": {"a": {"replicas": 2}}}, "tables"),
    "a group with a volume": (
        {"clickhouse": SERVER, "projectors": {"a": {"tables": ["B"], "storage": {"size": "1Gi"}}}},
        "storage",
    ),
    "more projectors of a group than partitions": (
        {"clickhouse": SERVER, "projectors": {"a": {"tables": ["Board"], "replicas": 5}}},
        "projectors.a.replicas is 5, and there are 4 partitions",
    ),
    "too long a name of a group": (
        {"clickhouse": SERVER, "fullnameOverride": "a" * 40, "projectors": {"b" * 13: {"tables": ["Board"]}}},
        "projectors.bbbbbbbbbbbbb is too long a name",
    ),
    "scaling without a topic": (
        {"workers": {"order": {"aggregate": "Order", "autoscaling": {"enabled": True}}}},
        "workers.order.topic",
    ),
    "scaling to none": ({"workerDefaults": {"autoscaling": {"minReplicas": 0}}}, "minReplicas"),
    "scaling upside down": (
        {"workerDefaults": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}},
        "workerDefaults.autoscaling.minReplicas is 3, and maxReplicas is 2",
    ),
    "scaling that begins above the partitions": (
        {"workers": {"order": {"aggregate": "Order", "autoscaling": {"minReplicas": 5, "maxReplicas": 30}}}},
        "workers.order.autoscaling.minReplicas is 5, and there are 4 partitions",
    ),
    "scaling of all that begins above the partitions": (
        {"workerDefaults": {"autoscaling": {"minReplicas": 5}}},
        "workerDefaults.autoscaling.minReplicas is 5, and there are 4 partitions",
    ),
}


@pytest.mark.parametrize(("changes", "named"), REFUSED.values(), ids=REFUSED)
def test_values_that_cannot_be_are_refused_by_name(chart: Chart, changes: Values, named: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        chart.render(minimal(**changes))
    assert named in str(refused.value)
    assert "me:secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["shop.prod", "a" * 53, "a" * 39 + ".b"])
def test_every_name_is_one_that_kubernetes_takes_whatever_the_releases(chart: Chart, name: str) -> None:
    objects = chart.render(minimal(**EVERYTHING | {"clickhouse": {}, "rebuild": {}}), name=name)
    label = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
    assert [each for _, each in objects if not label.fullmatch(each) or len(each) > 63] == []


def test_a_release_whose_name_begins_with_a_digit_is_refused_and_can_be_named_otherwise(chart: Chart) -> None:
    with pytest.raises(helm_python.HelmError, match="begins with a digit, and a Service's may not"):
        chart.render(minimal(), name="1shop")
    assert ("Service", "shop-health") in chart.render(minimal(fullnameOverride="shop"), name="1shop")


def declared() -> dict[str, str]:
    """The metrics, by the names of their series."""
    kinds = (Counter, Gauge, Histogram)
    modules = (worker_metrics, projector_metrics, process_metrics)
    metrics = [m for module in modules for m in vars(module).values() if isinstance(m, kinds)]
    series = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
    return {m._name + suffix: m._name for m in metrics for suffix in series[type(m)]}


def test_alerts_and_dashboard_speak_of_metrics_that_there_are_and_of_all_but_the_preflights(chart: Chart) -> None:
    objects, metrics = chart.render(minimal(**EVERYTHING)), declared()
    rules = json.dumps(objects["PrometheusRule", "rel"]["spec"])
    dashboard = objects["ConfigMap", "rel-dashboard"]["data"]["magnetar.json"]
    assert set(re.findall(r"magnetar_[a-z_]+", rules + dashboard)) <= metrics.keys()
    shown = {metrics[name] for name in re.findall(r"magnetar_[a-z_]+", dashboard)}
    assert set(metrics.values()) - shown == {"magnetar_preflight_warnings"}


def test_each_panel_has_a_place_and_asks_for_the_chosen_pipelines(chart: Chart) -> None:
    text = chart.render(minimal(**EVERYTHING))["ConfigMap", "rel-dashboard"]["data"]["magnetar.json"]
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert places == [(12 * (n % 2), 8 * (n // 2)) for n in range(len(panels))]
    for panel in panels:
        (target,) = panel["targets"]
        asked = re.findall(r"magnetar_[a-z_]+(.{21})", target["expr"])
        assert set(asked) <= {'{context=~"$context"}'}, panel["title"]


def test_an_upgrade_is_told_what_moves_what_is_rebuilt_and_the_way_back(chart: Chart) -> None:
    embedded, server = minimal(), minimal(clickhouse=SERVER, rebuild={"enabled": True})
    said = chart.notes(embedded, is_upgrade=True)
    assert "rollout status deployment/rel-worker-order deployment/rel-worker-stock-item\n" in said
    assert "exec statefulset/rel-projector -- magnetar rebuild shop.pipeline --changed\n" in said
    assert "helm --namespace ns rollback rel\n" in said
    assert "logs --follow job/rel-rebuild-2\n" in chart.notes(server, is_upgrade=True)
    alone = chart.notes(minimal(projector={"enabled": False}), is_upgrade=True)
    assert "rollback" in alone
    assert "rebuild" not in alone
    installed = chart.notes(embedded, is_upgrade=False)
    assert "rollback" not in installed
    assert "helm --namespace ns test rel" in installed


def test_the_readme_is_that_of_the_values() -> None:
    from tools.chart_readme import CHART, readme

    assert (CHART / "README.md").read_text(encoding="utf-8") == readme()


def test_every_value_has_a_comment(chart: Chart) -> None:
    from tools.chart_readme import comments

    text = (chart.folder / "values.yaml").read_text(encoding="utf-8")
    said = {path for path, _ in comments(text)}

    def leaves(values: Any, path: str = "") -> list[str]:
        if path in said or not isinstance(values, dict) or not values:
            return [path]
        return [leaf for key, value in values.items() for leaf in leaves(value, f"{path}.{key}".lstrip("."))]

    assert set(leaves(yaml.safe_load(text))) == said
