"""A producer of Pulsar's Java client, set to Murmur3, puts each id where we would."""

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

from magnetar.schemas import Topic, TopicKind

from tests.pulsar_rig import Existing, distribution

HERE = Path(__file__).parent
VECTORS = json.loads((HERE.parent / "vectors" / "murmur3.json").read_text())


def test_a_java_producer_chooses_the_published_partitions(broker: Existing, new_topic: Callable[..., Topic]) -> None:
    for partitions in (16, 7):
        topic = new_topic(TopicKind.COMMANDS, partitions=partitions)
        ids = [b64encode(vector["id"].encode()).decode() for vector in VECTORS]
        program = ["java", "-cp", f"{distribution()}/lib/*", str(HERE / "Produce.java")]
        command = [*program, broker.service_url, f"persistent://public/{topic}", *ids]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        chosen = [int(line.split()[1]) for line in ran.stdout.splitlines() if line.startswith("partition ")]
        assert chosen == [vector[f"partition_of_{partitions}"] for vector in VECTORS]
