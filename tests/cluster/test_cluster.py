"""On three bookies and two brokers: what is planned for them, and what the death of one of them loses."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.preflight import examine
from magnetar.pipelines.runtime import provision
from magnetar.schemas import LogUnavailable

from examples.flights.pipeline import flights
from tests.chaos.on_pulsar import Blow, PulsarRun, now_ms
from tests.chaos.processes import eventually, parts
from tests.pulsar_cluster import Cluster
from tests.pulsar_rig import data_folder, started

pytestmark = [pytest.mark.broker, pytest.mark.soak]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The cluster."""
    with data_folder() as folder, started(Cluster(folder)) as cluster:
        yield cluster


def quorums(log: PulsarLog, namespace: str) -> tuple[int, int, int]:
    """How many bookies keep an entry, and how many must have confirmed it."""
    found = log._admin.read(f"/namespaces/{namespace}/persistence")
    names = ("bookkeeperEnsemble", "bookkeeperWriteQuorum", "bookkeeperAckQuorum")
    ensemble, write, ack = (found[name] for name in names)
    return ensemble, write, ack


def test_every_entry_is_confirmed_by_two_bookies_and_fewer_is_a_finding(cluster: Cluster) -> None:
    tenant = cluster.new_tenant()
    log = PulsarLog(cluster.service_url, cluster.admin_url, clock=SystemClock(), tenant=tenant)
    try:
        eventually(lambda: is_provisioned(log), "the topics are there")
        assert quorums(log, f"{tenant}/flights") == (3, 3, 2)
        assert not [each for each in examine(flights, log) if each.check == "acknowledging bookies"]
        one = {"bookkeeperEnsemble": 1, "bookkeeperWriteQuorum": 1, "bookkeeperAckQuorum": 1}
        body = {**one, "managedLedgerMaxMarkDeleteRate": 10.0}
        log._admin.call("POST", f"/namespaces/{tenant}/flights/persistence", body)
        assert [each for each in examine(flights, log) if each.check == "acknowledging bookies"]
    finally:
        log.close()


def is_provisioned(log: PulsarLog) -> bool:
    """Make what is missing; not if a call takes too long, as on a cluster that has just started."""
    try:
        provision(flights, log)
    except LogUnavailable:
        return False
    return True


class ClusterRun(PulsarRun):
    """A run on the cluster, with less load: six servers share the machine."""

    load = ("--at-once", "60", "--per-second", "8", "--ask-seconds", "20")

    def __init__(self, folder: Path, cluster: Cluster, random_seed: int) -> None:
        super().__init__(folder, cluster, random_seed)
        self._cluster = cluster

    def lose(self, kind: str) -> None:
        """kill -9 of one server, under load; it comes back later."""
        self.until_told(100)
        server = {"bookie": self._cluster.bookies[0], "broker": self._cluster.brokers[1]}[kind]
        self.blows.append(Blow(f"kill the {kind}", now_ms()))
        server.kill()
        self.until_told(200)
        server.start()
        self.until_told(200)


def test_a_killed_bookie_and_a_killed_broker_lose_nothing(cluster: Cluster, tmp_path: Path) -> None:
    run = ClusterRun(tmp_path, cluster, random.getrandbits(32))
    with parts(*run.parts):
        run.begin()
        run.lose("bookie")
        run.lose("broker")
        run.strike("kill")
        run.finish()
        assert run.judge() == []
    run.close()
