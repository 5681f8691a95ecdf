"""The message on a checkpoint topic: one block of a round. docs/checkpoints.md describes it."""

from __future__ import annotations

import json
import zlib
from typing import Final

import msgspec

from .errors import Undecodable
from .framing import read_bytes, read_long, write_bytes, write_long

FORMAT: Final = 1
CHECKPOINT_JSON: Final = json.dumps(
    {
        "type": "record",
        "name": "CheckpointBlock",
        "namespace": "magnetar",
        "doc": "One block of a round of a partition's states. A cache: what counts is the log.",
        "fields": [
            {"name": "crc", "type": "long", "doc": "CRC-32 of all that follows"},
            {"name": "format", "type": "long"},
            {"name": "fingerprint", "type": "bytes", "doc": "of the states' types and the aggregate's revision"},
            {"name": "owner", "type": "bytes", "doc": "of the commits up to here, and who has written this"},
            {"name": "number", "type": "long", "doc": "of the last commit before the round"},
            {"name": "index", "type": "long", "doc": "of this block in its round, from 0"},
            {"name": "blocks", "type": "long", "doc": "how many the round has; 0 in all but the last"},
            {"name": "body", "type": "bytes"},
        ],
    }
)


class CheckpointBlock(msgspec.Struct, frozen=True, gc=False):
    """One block. `owner` and `number` name the round: an owner begins one at most behind each of its commits."""

    fingerprint: bytes
    owner: bytes
    number: int
    index: int
    blocks: int
    body: bytes

    def encode(self) -> bytes:
        """The block as the Avro record `CHECKPOINT_JSON`."""
        rest = b"".join(
            (
                write_long(FORMAT),
                write_bytes(self.fingerprint),
                write_bytes(self.owner),
                write_long(self.number),
                write_long(self.index),
                write_long(self.blocks),
                write_bytes(self.body),
            )
        )
        return write_long(zlib.crc32(rest)) + rest

    @classmethod
    def decode(cls, payload: bytes) -> CheckpointBlock:
        """Read a block. Raises Undecodable for one that is damaged, or of another format."""
        try:
            crc, at = read_long(payload, 0)
            if zlib.crc32(payload[at:]) != crc:
                raise Undecodable("A block of a checkpoint is damaged.")
            layout, at = read_long(payload, at)
            if layout != FORMAT:
                raise Undecodable(f"A block of a checkpoint has format {layout}; this Magnetar reads {FORMAT}.")
            fingerprint, at = read_bytes(payload, at)
            owner, at = read_bytes(payload, at)
            number, at = read_long(payload, at)
            index, at = read_long(payload, at)
            blocks, at = read_long(payload, at)
            body, at = read_bytes(payload, at)
        except IndexError as error:
            raise Undecodable("A block of a checkpoint is cut off.") from error
        return cls(fingerprint, owner, number, index, blocks, body)
