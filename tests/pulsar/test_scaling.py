"""What KEDA reads of a real Pulsar when it is given the ScaledObject that the chart renders."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml
from magnetar.pipelines import Outgoing, Pipeline, SyncClient
from magnetar.pipelines.chart import values_of, write_chart
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings

from tests.chaos.processes import eventually
from tests.helm.conftest import Chart
from tests.pulsar.test_client import working
from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Pay, Purse


def trigger(pipeline: Pipeline, broker: Existing, folder: Path) -> dict[str, str]:
    """What the chart says to KEDA, of the values that are derived from the pipeline."""
    derived = values_of(
        pipeline, "shop.pipeline", url=broker.service_url, admin_url=broker.admin_url, tenant="public", image="shop:1"
    )
    chart = Chart(write_chart(folder))
    values = {**yaml.safe_load(derived), "workerDefaults": {"autoscaling": {"enabled": True}}}
    (found,) = chart.render(values)["ScaledObject", "rel-worker-purse"]["spec"]["triggers"]
    chart.close()
    assert found["type"] == "pulsar"
    metadata: dict[str, str] = found["metadata"]
    return metadata


def backlog(metadata: dict[str, str], get: Callable[..., httpx.Response] = httpx.get) -> int:
    """As `pkg/scalers/pulsar_scaler.go` of KEDA 2.21.0 finds it: the same address, and the same place in the answer."""
    kind = "partitioned-stats" if metadata["isPartitionedTopic"] == "true" else "stats"
    topic = metadata["topic"].replace("persistent://", "")
    stats = get(f"{metadata['adminURL']}/admin/v2/persistent/{topic}/{kind}", timeout=60).raise_for_status()
    subscriptions: dict[str, Any] = stats.json()["subscriptions"]  # one that is missing is an error of KEDA's
    return int(subscriptions[metadata["subscription"]]["msgBacklog"])


def test_keda_reads_how_many_batches_of_commands_wait_for_the_workers(
    broker: Existing, open_log: Callable[..., PulsarLog], tmp_path: Path
) -> None:
    pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=2)
    provision(pipeline, open_log())
    metadata = trigger(pipeline, broker, tmp_path)
    with working(pipeline, open_log()):  # the first makes the subscription: before, KEDA finds none
        pass
    assert backlog(metadata) == 0
    with SyncClient(pipeline, settings=Settings(broker=broker.service_url, broker_admin=broker.admin_url)) as client:
        for number in range(5):
            client.send(Purse, f"p{number}", Pay(1))
        eventually(lambda: backlog(metadata) == 5, "each of them waits")
        for _ in client.send_many(Outgoing(Purse, f"p{number}", Pay(1)) for number in range(4_000)):
            pass
        assert 5 + 4 <= backlog(metadata) < 1_000, "at most 1,000 commands of a bulk are one"
    with working(pipeline, open_log()):
        eventually(lambda: backlog(metadata) == 0, "none waits")
