"""The message that answers an ask: the command's commit, and where it stands."""

from __future__ import annotations

from typing import NamedTuple

from magnetar.schemas import Undecodable
from magnetar.schemas.framing import read_bytes, read_long, write_bytes, write_long


class Reply(NamedTuple):
    """A commit's bytes, the partition of its topic, and the number of the schema it was written with."""

    partition: int
    schema: int
    commit: bytes

    def encode(self) -> bytes:
        """The reply as an Avro record of long, long and bytes."""
        return write_long(self.partition) + write_long(self.schema) + write_bytes(self.commit)

    @classmethod
    def decode(cls, payload: bytes) -> Reply:
        """Read a reply. Raises Undecodable."""
        try:
            partition, at = read_long(payload, 0)
            schema, at = read_long(payload, at)
            commit, at = read_bytes(payload, at)
        except IndexError as error:
            raise Undecodable("The bytes are not a reply.") from error
        return cls(partition, schema, commit)
