"""A worker and a projector under load: every metric that is documented is scraped, and trouble raises its alert."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from magnetar.pipelines import CommandParked, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import decide_until, workers_of
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.outgoing import Outgoing
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.schemas import TopicKind, partition_of
from prometheus_client.parser import text_string_to_metric_families

from tests import prometheus_rig
from tests.docs.pages import ROOT, Block, parts
from tests.e2e.disks import SMALL, Disk
from tests.helm.conftest import Chart, minimal
from tests.helm.watched import POISON, Pay, Purse, watched
from tests.helm.watched_newer import Purse as NewerPurse
from tests.helm.watched_newer import Tip, Tipped, newer
from tests.pulsar_rig import free_ports
from tools.site import metrics

MAGNETAR = Path(sys.executable).with_name("magnetar")
SECONDS_MAX = 180
LABELS = {"context", "aggregate", "partition", "outcome", "reason", "projection", "error", "target", "le"}


def eventually(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS_MAX} s: {what}"
        time.sleep(0.2)


class Running(NamedTuple):
    """The processes of the pipeline."""

    folder: Path
    ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def client(self) -> SyncClient:
        return SyncClient(watched, settings=Settings(data=self.data))

    def scrape(self, role: str) -> str:
        return httpx.get(f"http://127.0.0.1:{self.ports[role]}/metrics", timeout=60).text

    def samples(self) -> dict[str, list[dict[str, str]]]:
        """The labels of all samples of both processes, by the documented name of their metric."""
        found: dict[str, list[dict[str, str]]] = {}
        for role in self.ports:
            for family in text_string_to_metric_families(self.scrape(role)):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                labels = [sample.labels for sample in family.samples if not sample.name.endswith("_created")]
                found.setdefault(name, []).extend(labels)
        return found

    @contextmanager
    def rebuilding(self, name: str) -> Iterator[None]:
        command = [str(MAGNETAR), "rebuild", "watched", name, "--data", str(self.data)]
        process = subprocess.Popen(command, cwd=self.folder)
        yield
        process.terminate()
        process.wait(60)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A worker and a projector on the embedded log. A table stops at the second aggregate with what it cannot take."""
    shutil.copy(Path(__file__).with_name("watched.py"), tmp_path)
    running = Running(tmp_path, dict(zip(("worker", "projector"), free_ports(2), strict=True)), {})
    for role, port in running.ports.items():
        with (tmp_path / f"{role}.log").open("w") as log:
            command = [str(MAGNETAR), "run", "watched", "--role", role, "--data", str(running.data)]
            environment = os.environ | {"MAGNETAR_HEALTH_PORT": str(port), "MAGNETAR_QUARANTINE_KEYS_MAX": "1"}
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
            running.processes[role] = process
        eventually(partial(_is_ready, port), f"{role} is ready")
    yield running
    for process in running.processes.values():
        process.terminate()
    for process in running.processes.values():
        process.wait(60)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def rules(chart: Chart) -> dict[str, Any]:
    """The alerts as the chart renders them, with thresholds that a test can wait for."""
    short = {"enabled": True, "stalledSeconds": 2, "tablesBehindSeconds": 2}
    pipeline = {"module": "watched", "context": "watched", "partitions": 2}
    spec: dict[str, Any] = chart.render(minimal(pipeline=pipeline, prometheusRule=short))["PrometheusRule", "rel"][
        "spec"
    ]
    return spec


def documented() -> set[str]:
    return set(re.findall(r"^\| `(magnetar_\w+)`", metrics(), re.MULTILINE))


@contextmanager
def load(running: Running, partition: int) -> Iterator[None]:
    """Commands without end, on a thread, all of one partition."""
    stopped = threading.Event()
    ids = [id for id in (f"p{n}" for n in range(500)) if partition_of(id, 2) == partition]

    def send() -> None:
        with running.client() as client:
            for _ in client.send_many(Outgoing(Purse, id, Pay(1)) for id in cycle(ids)):
                if stopped.is_set():
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_every_documented_metric_is_scraped_under_load(running: Running) -> None:
    with running.client() as client:
        for amount in (0, 1, 5000):
            client.ask(Purse, "a", Pay(amount), timeout_seconds=SECONDS_MAX)
        with pytest.raises(CommandParked):
            client.ask(Purse, "a", Pay(13), timeout_seconds=SECONDS_MAX)
        fence(running, partition_of("a", 2))
        for id in ("a", "b"):
            client.ask(Purse, id, Pay(POISON), timeout_seconds=SECONDS_MAX)
    with load(running, partition_of("a", 2)):
        eventually(lambda: "magnetar_checkpoint_timestamp_seconds" in with_samples(running), "a checkpoint")
    with running.rebuilding("Payment"):  # which stops at the poison
        eventually(lambda: documented() <= with_samples(running), f"all of {documented() - with_samples(running)}")
    found = running.samples()
    ours = {name: samples for name, samples in found.items() if name.startswith("magnetar_")}
    assert {label for samples in ours.values() for labels in samples for label in labels} <= LABELS
    assert {labels["outcome"] for labels in ours["magnetar_commands_total"]} >= {
        *("accepted", "nothing", "rejected", "parked")
    }
    assert {labels["reason"] for labels in ours["magnetar_partitions_lost_total"]} == {"OwnershipLost"}
    assert sum(map(len, ours.values())) < 400, "the number of samples follows the partitions, not the aggregates' ids"
    assert found["process_resident_memory_bytes"]


def with_samples(running: Running) -> set[str]:
    return {name for name, samples in running.samples().items() if samples}


def fence(running: Running, partition: int) -> None:
    """Take the partition away from its worker, as a second one would that believes to own it."""
    log = SqliteLog(running.data, SystemClock())
    schema = watched.schemas["Purse"].commit_json
    log.fence(watched.topic("Purse", TopicKind.EVENTS), partition, schema=schema, name="intruder").close()
    log.close()


@pytest.fixture
def prometheus(running: Running, rules: dict[str, Any], tmp_path: Path) -> Iterator[prometheus_rig.Prometheus]:
    """One that watches them, by the chart's alerts. What they wait for is short."""
    targets = [f"127.0.0.1:{port}" for port in running.ports.values()]
    with prometheus_rig.running(tmp_path, quick(rules, tmp_path), targets) as prometheus:
        yield prometheus


def quick(rules: dict[str, Any], folder: Path) -> Path:
    """The rules, with what a test cannot wait for made short."""
    changed = deepcopy(rules)
    for rule in changed["groups"][0]["rules"]:
        rule["for"] = "1s"
        if rule["alert"] == "MagnetarRebuildStuck":
            rule["expr"] = rule["expr"].replace("[15m]", "[5s]")
        if rule["alert"] == "MagnetarTablesStuck":  # a partition is tried again every five to ten seconds
            rule["expr"] = rule["expr"].replace("> 10", "> 1")
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(changed))
    return path


def test_trouble_raises_its_alerts_in_a_prometheus(running: Running, prometheus: prometheus_rig.Prometheus) -> None:
    stalled = partition_of("a", 2)
    other, another = [id for id in map(str, range(100)) if partition_of(id, 2) != stalled][:2]
    with running.client() as client:
        for id in ("a", other):
            client.ask(Purse, id, Pay(1), timeout_seconds=SECONDS_MAX)
        eventually(lambda: len(prometheus.query('magnetar_table_number{projection="mirror"}')) == 2, "scrapes")
        assert prometheus.alerts() - {"MagnetarDiskFull"} == set(), "nothing is wrong yet"  # whose disk it is!
        with held(running, stalled):
            client.send(Purse, "a", Pay(1))
            eventually(lambda: "MagnetarCommandsStalled" in prometheus.alerts(), "an alert of a stalled partition")
            (alert,) = prometheus.query('ALERTS{alertname="MagnetarCommandsStalled", alertstate="firing"}')
            assert alert["metric"]["partition"] == str(stalled)
            client.ask(Purse, other, Pay(POISON), timeout_seconds=SECONDS_MAX)
            eventually(lambda: "MagnetarEventsQuarantined" in prometheus.alerts(), "an alert of a quarantined event")
            client.ask(Purse, another, Pay(POISON), timeout_seconds=SECONDS_MAX)
            with pytest.raises(CommandParked):
                client.ask(Purse, other, Pay(13), timeout_seconds=SECONDS_MAX)
        with running.rebuilding("Payment"):  # which the poison stops, too
            wanted = {f"Magnetar{name}" for name in ("CommandsParked", "TablesBehind", "TablesStuck", "RebuildStuck")}
            eventually(lambda: wanted <= prometheus.alerts(), f"alerts {wanted}")
        client.ask(Purse, "a", Pay(1), timeout_seconds=SECONDS_MAX)  # it goes on by itself
        eventually(lambda: not prometheus.query("magnetar_command_age_seconds > 0"), "nothing in hand")


def test_workers_that_fight_that_are_old_and_that_are_gone_raise_their_alerts(
    running: Running, prometheus: prometheus_rig.Prometheus
) -> None:
    with running.client() as client:

        def fought() -> bool:
            fence(running, partition_of("a", 2))
            client.ask(Purse, "a", Pay(1), timeout_seconds=SECONDS_MAX)
            return "MagnetarFencingWar" in prometheus.alerts()

        eventually(fought, "an alert of workers that take partitions from each other")
        assert "MagnetarPartitionsRefused" not in prometheus.alerts()
        decide_by_newer_code(running)
        client.send(Purse, "a", Pay(1))
        eventually(lambda: "MagnetarPartitionsRefused" in prometheus.alerts(), "an alert of events of newer code")
    running.processes["worker"].terminate()
    eventually(lambda: "MagnetarNobodyDecides" in prometheus.alerts(), "an alert that no worker is there")
    assert "MagnetarNobodyFeeds" not in prometheus.alerts()
    running.processes["projector"].terminate()
    eventually(lambda: "MagnetarNobodyFeeds" in prometheus.alerts(), "an alert that no projector is there")


def decide_by_newer_code(running: Running) -> None:
    """Let a worker of a later version decide commands, in whose events is more than the other knows."""
    log, clock, stopped = SqliteLog(running.data, SystemClock()), SystemClock(), threading.Event()
    provision(newer, log)
    workers = workers_of(newer, log, name="newer", clock=clock)
    thread = threading.Thread(target=decide_until, args=(stopped.is_set, workers, clock))
    thread.start()
    ids = count()
    with SyncClient(newer, settings=Settings(data=running.data)) as client:

        def decided() -> bool:
            try:
                tipped = client.ask(NewerPurse, str(next(ids)), Tip(1), timeout_seconds=SECONDS_MAX).outcome
            except CommandParked:  # on the partition that the other has kept
                return False
            return isinstance(tipped, Tipped)

        eventually(decided, "the later version has a partition")
    stopped.set()
    thread.join()
    for worker in workers:
        worker.close()
    log.close()


def test_a_disk_that_is_nearly_full_raises_its_alerts(rules: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk, (port,) = Disk(tmp_path / "disk", SMALL, "64m"), free_ports(1)
    shutil.copy(Path(__file__).with_name("watched.py"), disk.path)
    (disk.path / "full").write_bytes(bytes(59 * 2**20))
    command = [*disk.within, str(MAGNETAR), "run", "watched", "--role", "worker"]
    process = subprocess.Popen(command, env=os.environ | {"MAGNETAR_HEALTH_PORT": str(port)})
    with prometheus_rig.running(tmp_path, quick(rules, tmp_path), [f"127.0.0.1:{port}"]) as prometheus:
        wanted = {"MagnetarDiskFull", "MagnetarPreflight"}  # the preflight wants a gigabyte
        eventually(lambda: process.poll() is not None or wanted <= prometheus.alerts(), f"alerts {wanted}")
        assert process.poll() is None
    process.terminate()
    process.wait(60)
    disk.close()


@contextmanager
def held(running: Running, partition: int) -> Iterator[None]:
    """Nobody can append to the partition, as on a disk or a broker that does not answer."""
    log = SqliteLog(running.data, SystemClock())
    path = log.partition_file(watched.topic("Purse", TopicKind.EVENTS), partition)
    log.close()
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()


PURSE = 'context="watched",aggregate="Purse"'
BOARD = f'{PURSE},projection="board"'
CASES: dict[str, tuple[dict[str, str], str]] = {
    # By alert, and by what else may be behind it.
    # Samples a minute apart (promtool's notation: start+step x times), and when, within them, the alert fires first.
    "MagnetarCommandsStalled": ({f'magnetar_command_age_seconds{{{PURSE},partition="1"}}': "0x4 3+60x20"}, "7m"),
    "MagnetarNobodyDecides": (
        {
            f"magnetar_partitions_owned{{{PURSE}}}": "2x9 0x20",
            f'magnetar_commands_total{{{PURSE},outcome="accepted"}}': "0+10x9 100x20",
        },
        "15m",
    ),
    "MagnetarNobodyDecides, with no process there": (
        {
            f"magnetar_partitions_owned{{{PURSE}}}": "2x9 stale _x20",
            f'magnetar_commands_total{{{PURSE},outcome="accepted"}}': "0+10x9 stale _x20",
        },
        "15m",
    ),
    "MagnetarCommandsParked": ({f'magnetar_parked_total{{{PURSE},reason="raised"}}': "_x10 1x10"}, "10m"),
    "MagnetarFencingWar": (
        {f'magnetar_partitions_lost_total{{{PURSE},reason="OwnershipLost"}}': "1x9 1+4x20"},
        "12m",
    ),
    "MagnetarPartitionsLost": (
        {
            f'magnetar_partitions_lost_total{{{PURSE},reason="OwnershipLost"}}': "1+5x30",
            f'magnetar_partitions_lost_total{{{PURSE},reason="AccessDenied"}}': "1x9 1+8x20",
        },
        "12m",
    ),
    "MagnetarPartitionsRefused": ({f"magnetar_partitions_refused{{{PURSE}}}": "0x9 1x20"}, "15m"),
    "MagnetarNobodyFeeds": (
        {
            f"magnetar_table_partitions_fed{{{BOARD}}}": "2x9 0x20",
            f'magnetar_commit_number{{{PURSE},partition="1"}}': "5+10x30",
        },
        "15m",
    ),
    "MagnetarNobodyFeeds, with no process there and its workers gone later": (
        {
            f'magnetar_table_partitions_fed{{{BOARD},pod="p"}}': "2x9 stale _x20",
            f'magnetar_commit_number{{{PURSE},partition="1",pod="w"}}': "5+10x9 stale _x20",
        },
        "15m",
    ),
    "MagnetarNobodyFeeds, with the projectors of a group not there": (
        {
            f'magnetar_table_partitions_fed{{{BOARD},pod="g"}}': "2x9 stale _x20",
            f'magnetar_table_partitions_fed{{{BOARD},pod="p"}}': "0x30",
            f'magnetar_table_partitions_fed{{{PURSE},projection="mirror",pod="p"}}': "2x30",
        },
        "15m",
    ),
    "MagnetarTablesStuck": (
        {f'magnetar_table_partitions_lost_total{{{BOARD},error="StoreUnavailable"}}': "1x9 1+8x20"},
        "12m",
    ),
    "MagnetarEventsUnread": (
        {
            f'magnetar_commit_number{{{PURSE},partition="1",pod="w"}}': "5x4 5+10x30",
            f'magnetar_table_number{{{BOARD},partition="1",pod="p"}}': "5x40",
            f'magnetar_table_number{{{PURSE},projection="mirror",partition="1",pod="p"}}': "5x4 5+10x30",
        },
        "12m",
    ),
    "MagnetarEventsQuarantined": ({f"magnetar_quarantined_keys{{{BOARD}}}": "0x9 1x20"}, "11m"),
    "MagnetarTablesBehind": ({f'magnetar_table_lag_seconds{{{BOARD},partition="1"}}': "0x4 3+60x20"}, "7m"),
    "MagnetarRebuildStuck": (
        {
            'magnetar_rebuild_commits{context="watched",target="Board"}': "0+1000x10 10000x40",
            'magnetar_rebuild_commits_left{context="watched",target="Board"}': "20000+10x50",
        },
        "35m",
    ),
    "MagnetarDiskFull": (
        {
            'magnetar_disk_free_bytes{context="watched",pod="p"}': "50x9 9x20",
            'magnetar_disk_size_bytes{context="watched",pod="p"}': "100x40",
        },
        "15m",
    ),
    "MagnetarPreflight": ({'magnetar_preflight_warnings{context="watched"}': "0x9 2x20"}, "15m"),
}


def test_every_alert_has_its_section_in_the_runbook_and_its_line_in_the_docs(rules: dict[str, Any]) -> None:
    alerts = [rule["alert"] for rule in rules["groups"][0]["rules"]]
    book = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (Magnetar\w+)$", book, re.MULTILINE) == alerts
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Magnetar\w+)` \|", page, re.MULTILINE) == alerts
    for rule in rules["groups"][0]["rules"]:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_without_a_projector_nobody_is_told_that_nothing_is_fed(chart: Chart) -> None:
    values = minimal(prometheusRule={"enabled": True}, projector={"enabled": False})
    rules = chart.render(values)["PrometheusRule", "rel"]["spec"]["groups"][0]["rules"]
    assert "MagnetarNobodyFeeds" not in {rule["alert"] for rule in rules}


def test_what_tables_lack_in_commits_is_told_as_the_runbook_says(tmp_path: Path) -> None:
    (expression,) = (
        p.text for p in parts(ROOT / "docs" / "runbook.md") if isinstance(p, Block) and p.language == "promql"
    )
    where = 'partition="{}",pod="{}",instance="{}:8790",job="magnetar"'
    worker, projector = where.format(1, "w", "w"), where.format(1, "p", "p")
    series = {
        f"magnetar_commit_number{{{PURSE},{worker}}}": "100x9 stale",
        f"magnetar_commit_number{{{PURSE},{where.format(1, 'w2', 'w2')}}}": "_x9 140x9",  # it moved
        f"magnetar_table_number{{{BOARD},{projector}}}": "60x20",
        f'magnetar_table_number{{{PURSE},projection="mirror",{projector}}}': "95x20",
        f"magnetar_commit_number{{{PURSE},{where.format(0, 'w', 'w')}}}": "7x20",
        f"magnetar_table_number{{{BOARD},{where.format(0, 'p2', 'p2')}}}": "7x20",
    }

    def lacks(board: int, mirror: int) -> list[dict[str, Any]]:
        return [
            {"labels": f'{{{BOARD},partition="0"}}', "value": 0},
            {"labels": f'{{{BOARD},partition="1"}}', "value": board},
            {"labels": f'{{{PURSE},projection="mirror",partition="1"}}', "value": mirror},
        ]

    evaluate(
        tmp_path,
        series,
        [
            {"expr": expression, "eval_time": "5m", "exp_samples": lacks(40, 5)},
            {"expr": expression, "eval_time": "15m", "exp_samples": lacks(80, 45)},
        ],
    )


def test_prometheus_understands_every_panel_of_the_dashboard(chart: Chart, tmp_path: Path) -> None:
    shown = chart.render(minimal(dashboards={"enabled": True}))["ConfigMap", "rel-dashboard"]["data"]["magnetar.json"]
    asked = [target["expr"] for panel in json.loads(shown)["panels"] for target in panel["targets"]]
    filled = [each.replace("$__rate_interval", "5m").replace("$context", "watched") for each in asked]
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(filled)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    command = [str(prometheus_rig.program("promtool")), "check", "rules", "panels.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_has_a_case(rules: dict[str, Any]) -> None:
    assert {rule["alert"] for rule in rules["groups"][0]["rules"]} == {case.partition(",")[0] for case in CASES}


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_alert_fires_when_it_should_and_not_before(case: str, rules: dict[str, Any], tmp_path: Path) -> None:
    alert, (series, at) = case.partition(",")[0], CASES[case]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    before = f"{int(at[:-1]) - 1}m"
    firing = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
    expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    evaluate(
        tmp_path,
        series,
        [
            {"expr": firing, "eval_time": before, "exp_samples": []},
            {"expr": firing, "eval_time": at, "exp_samples": expected},
        ],
    )


def evaluate(tmp_path: Path, series: dict[str, str], expressions: list[dict[str, Any]]) -> None:
    """Have promtool say what these expressions give at their times, by the rules in the folder, if there are any."""
    test = {
        "rule_files": [path.name for path in tmp_path.glob("rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": expressions,
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    command = [str(prometheus_rig.program("promtool")), "test", "rules", "test.yaml"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
