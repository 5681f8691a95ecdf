"""A release whose tables are on a ClickHouse server, on a real node: upgraded, rebuilt, refused and rolled back.

The server is tests/clickhouse_server.py's, on this machine. Commands are sent from outside all the while.
"""

import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import helm_python
import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.carrying_out import asking
from magnetar.pipelines.chart import write_chart
from magnetar.pipelines.cli.shared import EXIT_YOURS
from magnetar.pipelines.settings import Settings

from examples.flights import demo
from examples.flights.data import commands, expected, rows
from examples.flights.pipeline import flights
from tests.chaos.processes import eventually
from tests.clickhouse_server import Running, clickhouse
from tests.kubernetes.control_plane import Api
from tests.node.release import SECONDS_MAX, SMALL, Release, values
from tests.node_rig import GATEWAY, RealNode
from tests.pulsar_rig import Standalone

FLIGHTS = 1_500
TABLES = ["Flight", "LateDeparture", "Board", "DelaysByRoute", "HourlyDepartures"]


class Served(Release):
    """The release, and the server with its tables."""

    def __init__(self, node: RealNode, api: Api, server: Running, chosen: list[Any]) -> None:
        super().__init__(node, api, "served", expected(iter(chosen)))
        self._asked = asking(server.endpoint)

    def ask(self, _: Path, sql: str) -> list[dict[str, Any]]:
        return self._asked(sql)

    @property
    def generations(self) -> set[int]:
        """Those that are shown."""
        return {row["generation"] for row in self._asked("SELECT DISTINCT generation FROM flights.freshness")}

    @property
    def commits(self) -> int:
        """As many as are in every table."""
        each = "SELECT sum(number) AS n FROM flights.freshness GROUP BY `projection`"
        return int(self._asked(f"SELECT min(n) AS n FROM ({each})")[0]["n"])

    def upgrade(self, chart: Path, given: dict[str, Any]) -> None:
        self.helm.upgrade(chart, "fly", given, wait="watcher", timeout=SECONDS_MAX)


@pytest.fixture(scope="module")
def server(node: RealNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Where pods reach it."""
    with clickhouse(tmp_path_factory.mktemp("server"), address=GATEWAY) as running:
        yield running


@pytest.fixture
def served(node: RealNode, api: Api, server: Running) -> Iterator[Served]:
    served = Served(node, api, server, list(islice(rows(all_months=False), FLIGHTS)))
    yield served
    served.uninstall()


def kill_the_rebuild(served: Served) -> str:
    """Its pod, while it is at work; returns the pod's name."""
    eventually(lambda: is_running(served, "rebuild"), "the Job's pod runs", seconds=SECONDS_MAX)
    (pod,) = served.pods("rebuild")
    os.kill(served.node.process_of(pod), signal.SIGSTOP)  # so that it cannot get done before it is dead
    served.delete(pod)
    return str(pod["metadata"]["name"])


def is_running(served: Served, component: str) -> bool:
    return [pod["status"]["phase"] for pod in served.pods(component)] == ["Running"]


def test_nothing_is_lost_by_an_upgrade_its_rebuild_a_refused_one_and_a_rollback(
    served: Served, broker: Standalone, server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chart, tenant = write_chart(tmp_path / "chart"), broker.new_tenant()
    first = values(broker, tenant) | {
        "clickhouse": {
            "url": server.endpoint.url,
            "user": server.endpoint.user,
            "auth": {"password": server.endpoint.token},
        },
        "projector": {"replicas": 2, "resources": SMALL},
    }
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url, tenant=tenant)
    outgoing = iter(list(demo.outgoing(commands(islice(rows(all_months=False), FLIGHTS)), set())))
    third = served.want.commands // 3
    served.helm.install(chart, "fly", first, wait="watcher", timeout=SECONDS_MAX)
    with SyncClient(flights, settings=settings) as client:

        def send(count: int | None) -> None:
            for _ in client.send_many(islice(outgoing, count)):
                pass

        send(third)
        eventually(lambda: served.commits >= third // 2, "commits are in the tables", seconds=SECONDS_MAX)

        second = first | {"rebuild": {"enabled": True, "names": TABLES}}
        second["workers"] = {"flight": first["workers"]["flight"] | {"replicas": 1}}
        served.upgrade(chart, second)
        killed = kill_the_rebuild(served)
        send(third)
        eventually(lambda: served.job("fly-rebuild-2")["status"].get("succeeded"), "it is done", seconds=SECONDS_MAX)
        assert served.names("rebuild") - {killed}, "another pod has done it"
        assert served.generations == {2}
        eventually(lambda: served.is_ready("worker-flight", 1), "one worker is left", seconds=SECONDS_MAX)

        at_work = served.names("worker-flight") | served.names("projector")
        other = {"module": "flights.pipeline", "context": "flights", "partitions": flights.partitions + 1}
        refused = second | {"pipeline": other, "provision": {"backoffLimit": 0}}
        with pytest.raises(helm_python.HelmError, match="pre-upgrade"):
            served.upgrade(chart, refused)
        (pod,) = served.pods("provision")
        (provision,) = pod["status"]["initContainerStatuses"]
        assert provision["state"]["terminated"]["exitCode"] == EXIT_YOURS, "refused, and not unreachable"
        assert served.names("worker-flight") | served.names("projector") == at_work, "they go on"

        served.helm.rollback("fly", version=1, wait="watcher", timeout=SECONDS_MAX)
        eventually(lambda: served.is_ready("worker-flight", 2), "as many as there were", seconds=SECONDS_MAX)
        assert served.helm.test("fly", timeout=SECONDS_MAX)
        send(None)
    eventually(lambda: served.commits >= served.want.commands, "all are in the tables", seconds=SECONDS_MAX)
    monkeypatch.setattr(demo, "ask", served.ask)
    assert demo.report(tmp_path, served.want) == 0
