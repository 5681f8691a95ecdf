"""Commits as one Avro object container block, undecoded: what ClickHouse reads as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from magnetar.schemas.framing import write_bytes, write_long

SYNC: Final = b"magnetar-sync-16"
"""The marker behind a block. Any sixteen bytes do: the length in front of the block says where it ends."""


def header(schema_json: str) -> bytes:
    """The container's header, with the schema of the payloads (Avro 1.11, "Object Container Files")."""
    metadata = {"avro.schema": schema_json.encode(), "avro.codec": b"null"}
    pairs = b"".join(write_bytes(key.encode()) + write_bytes(value) for key, value in metadata.items())
    return b"Obj\x01" + write_long(len(metadata)) + pairs + b"\x00" + SYNC


def container(schema_json: str, payloads: Sequence[bytes]) -> tuple[bytes, bytes, bytes]:
    """A container file with one block, in parts that need not be joined. `payloads` are messages of one schema,
    unopened."""
    body = b"".join(payloads)
    return header(schema_json) + write_long(len(payloads)) + write_long(len(body)), body, SYNC
