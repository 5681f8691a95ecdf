"""The routing vectors are what Pulsar's own Java client computes."""

import json
import subprocess
from base64 import b64encode
from pathlib import Path

from tests.pulsar_rig import distribution

HERE = Path(__file__).parent
VECTORS = json.loads((HERE.parent / "vectors" / "murmur3.json").read_text())


def test_the_java_client_routes_the_same() -> None:
    ids = [b64encode(vector["id"].encode()).decode() for vector in VECTORS]
    command = ["java", "-cp", f"{distribution()}/lib/*", str(HERE / "Route.java"), *ids]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    hashes = [int(line) for line in ran.stdout.split()]
    assert hashes == [vector["murmur3_32"] & 0x7FFFFFFF for vector in VECTORS]
    assert [h % 16 for h in hashes] == [vector["partition_of_16"] for vector in VECTORS]
