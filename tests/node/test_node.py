"""The flights' pipeline in containers, on a real node: commands from outside come out in ClickHouse, whatever dies."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.chart import write_chart
from magnetar.pipelines.settings import Settings

from examples.flights import demo
from examples.flights.data import commands, expected, rows
from examples.flights.pipeline import flights
from tests.chaos.processes import eventually
from tests.kubernetes.control_plane import Api
from tests.node.release import ROOT, SECONDS_MAX, Release, values
from tests.node_rig import RealNode
from tests.pulsar_rig import Standalone

FLIGHTS = 2_000
DOCS = ROOT / "docs" / "kubernetes.md"


@pytest.fixture(scope="module")
def disk(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume for the projector, which the image's user may write to: no provisioner runs."""
    folder = tmp_path_factory.mktemp("disk")
    for each in (folder, folder.parent):
        each.chmod(0o755)
    os.chown(folder, 65532, 65532)
    spec = {
        "capacity": {"storage": "100Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(folder)},
    }
    api.post("/api/v1/persistentvolumes", {"metadata": {"name": "disk"}, "spec": spec}).raise_for_status()
    return folder


class Flying(Release):
    """The release whose tables are in the projector's pod."""

    def projector(self, *command: str) -> str:
        """What a command prints in the projector's pod."""
        return self.node.run_in(self.pods("projector")[0], *command)

    def ask(self, _: Path, sql: str) -> list[dict[str, Any]]:
        said = self.projector("magnetar", "query", sql, "--format", "jsonl")
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def flying(
    node: RealNode, api: Api, broker: Standalone, disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flying]:
    """The release, with all in its tables. When half of the commands had been sent, a worker's pod was deleted."""
    chosen = list(islice(rows(all_months=False), FLIGHTS))
    flying = Flying(node, api, "flights", expected(iter(chosen)))
    chart = write_chart(tmp_path_factory.mktemp("chart"))
    flying.helm.install(chart, "fly", values(broker, "public"), wait="watcher", timeout=SECONDS_MAX)
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    outgoing = list(demo.outgoing(commands(iter(chosen)), set()))
    with SyncClient(flights, settings=settings) as client:
        for _ in client.send_many(outgoing[: len(outgoing) // 2]):
            pass
        victim = flying.pods("worker-flight")[0]
        flying.delete(victim)
        for _ in client.send_many(outgoing[len(outgoing) // 2 :]):
            pass
    eventually(lambda: in_tables(flying) >= flying.want.commands, "all commits are in the tables", seconds=SECONDS_MAX)
    eventually(lambda: flying.is_ready("worker-flight", 2), "the pod is replaced", seconds=SECONDS_MAX)
    assert victim["metadata"]["name"] not in flying.names("worker-flight")
    yield flying
    flying.uninstall()


def in_tables(flying: Flying) -> int:
    return int(flying.ask(Path(), "SELECT count() AS n FROM flights.commits")[0]["n"])


@pytest.fixture
def reported(
    flying: Flying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Compares all tables with the CSV, and gives what agreed."""

    def report() -> str:
        monkeypatch.setattr(demo, "ask", flying.ask)
        assert demo.report(tmp_path, flying.want) == 0
        return "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("✓"))

    return report


def test_nothing_is_lost_when_a_workers_pod_is_deleted(reported: Callable[[], str]) -> None:
    said = reported()
    assert said in DOCS.read_text(), said


def test_a_query_reckons_with_the_memory_of_the_pod(flying: Flying) -> None:
    reckons = "from magnetar.projections.engine_reader import machine_bytes; print(machine_bytes())"
    assert int(flying.projector("python", "-c", reckons)) == 6 * 2**30, "the chart's limit, not the node's memory"


def test_a_rebuild_goes_on_where_it_was_when_the_projectors_pod_is_killed(
    flying: Flying, disk: Path, reported: Callable[[], str]
) -> None:
    (pod,) = flying.pods("projector")
    process, tables = flying.node.process_of(pod), disk / "clickhouse"
    rebuild = flying.node.command_in(pod, "magnetar", "rebuild", "flights.pipeline")
    command = subprocess.Popen(rebuild, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: parts(tables), "the new table has its first rows", seconds=SECONDS_MAX)
    os.kill(process, signal.SIGSTOP)  # so that it cannot get done before the pod is dead
    assert "flight__commits__g1" in (tables / "metadata/flights/flight__commits.sql").read_text(), "it is not done"
    flying.delete(pod)
    command.wait(SECONDS_MAX)  # it ran in that pod
    eventually(lambda: flying.is_ready("projector", 1), "the pod is replaced", seconds=SECONDS_MAX)
    assert flying.pods("projector")[0]["metadata"]["uid"] != pod["metadata"]["uid"]
    status = ("magnetar", "rebuild", "flights.pipeline", "--status", "--json")

    def shown() -> set[int]:
        return {each["generation"] for each in json.loads(flying.projector(*status)) if each["state"] == "shown"}

    # Nobody gives the command again. A rebuild that began anew would make a third generation.
    eventually(lambda: shown() == {2}, "the rebuild is done", seconds=SECONDS_MAX)
    assert reported() in DOCS.read_text()


def parts(tables: Path) -> list[Path]:
    """What the rebuild has inserted so far."""
    return list((tables / "data/flights/flight__commits__g2").glob("*_*_*_*"))
