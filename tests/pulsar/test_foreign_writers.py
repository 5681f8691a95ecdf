"""Somebody else writes to an event topic, while a worker decides on it and a projector mirrors it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulsar
import pytest
from magnetar.pipelines.history import log_of
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_send import PassThrough
from magnetar.schemas.framing import write_long

from tests.chaos.processes import eventually
from tests.e2e.conftest import Shell
from tests.pulsar.crew import MODULE, ROOT
from tests.pulsar.yard import LONG, Yard
from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Pay, Purse

PAID = "SELECT _partition, _number, total FROM {context}.Paid ORDER BY ALL"


class Scene:
    """A yard, and a projector of its purses as a process."""

    def __init__(self, yard: Yard, shell: Shell) -> None:
        self.yard, self.shell = yard, shell
        context, partitions = yard.pipeline.name, yard.pipeline.partitions
        (shell.folder / "crew.py").write_text(MODULE.format(root=str(ROOT), context=context, partitions=partitions))
        shell.environment |= {
            "MAGNETAR_BROKER": yard.broker.service_url,
            "MAGNETAR_BROKER_ADMIN": yard.broker.admin_url,
        }
        shell.start("run", "crew", "--role", "projector")

    def write(self, *payloads: bytes) -> None:
        """Take partition 0 from its worker, as somebody who knows Pulsar can who has the right to produce."""
        schema = PassThrough(self.yard.pipeline.schemas["Purse"].commit_json)
        exclusive = pulsar.ProducerAccessMode.ExclusiveWithFencing
        with self.yard.foreign(self.yard.events, 0, schema=schema, access_mode=exclusive) as producer:
            for payload in payloads:
                producer.send(payload, partition_key=self.yard.ids[0])

    def mirrored(self) -> list[tuple[int, int, int]]:
        """Partition, number and total of each payment in the table."""
        ran = self.shell.run("query", PAID.format(context=self.yard.pipeline.name), "--format", "jsonl")
        rows: list[dict[str, Any]] = [] if ran.returncode else list(map(json.loads, ran.stdout.splitlines()))
        return [(int(row["_partition"]), int(row["_number"]), int(row["total"])) for row in rows]

    def projector_says(self, words: str) -> bool:
        """Whether it stands in its log."""
        return words in (self.shell.folder / "run.log").read_text()


@pytest.fixture
def scene(broker: Existing, open_log: Callable[..., PulsarLog], tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(Yard(broker, open_log), Shell(tmp_path))
    yield scene
    scene.shell.close()


def test_what_others_write_counts_for_nobody_and_what_is_no_commit_stops_its_partition_alone(scene: Scene) -> None:
    yard = scene.yard
    with yard.working() as workers:
        assert [yard.pay(0).total, yard.pay(1).total] == [1, 1]
        commit = next(message.payload for message, _ in log_of(yard.log, yard.events, 0))
        forged = write_long(2) + b"x" * 16 + commit[len(write_long(1)) + 16 :]
        scene.write(forged, b'{"type": "Paid", "total": 1000000}', b"Paid a million, signed: somebody")
        assert [yard.pay(0).total, yard.pay(0).total, yard.pay(1).total] == [2, 3, 2]
        stored = [(yard.ids.index(each.aggregate_id), each.number, each.events[0].total) for each in yard.commits()]
        assert stored == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 1), (1, 2, 2)]
        eventually(lambda: scene.mirrored() == stored, "the mirror equals the log")

        scene.write(b"junk")
        with yard.client() as client:
            client.send(Purse, yard.ids[0], Pay(1), timeout_seconds=LONG)
        eventually(lambda: 0 in workers["Purse"].refused, "the worker refuses the partition")
        eventually(lambda: scene.projector_says("is no commit"), "the projector says so")
        assert yard.pay(1).total == 3
        eventually(lambda: scene.mirrored() == [*stored, (1, 3, 3)], "the other partition goes on in the mirror")
