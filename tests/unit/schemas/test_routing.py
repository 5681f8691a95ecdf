"""Routing, by its published vectors."""

import json
from pathlib import Path

from magnetar.schemas import murmur3_32, partition_of

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "murmur3.json").read_text())


def test_published_vectors() -> None:
    for vector in VECTORS:
        assert murmur3_32(vector["id"].encode()) == vector["murmur3_32"]
        assert partition_of(vector["id"], 16) == vector["partition_of_16"]
        assert partition_of(vector["id"], 7) == vector["partition_of_7"]


def test_a_known_value_of_the_algorithm() -> None:
    assert murmur3_32(b"hello") == 0x248BFA47
    assert murmur3_32(b"") == 0
