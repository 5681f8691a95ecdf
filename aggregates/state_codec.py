"""A state as bytes, for checkpoints and for the states that do not fit into memory."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Final

import msgspec
from magnetar.schemas import DeclarationError, PartitionRefused, wire_name

FINGERPRINT_BYTES: Final = 16
_ENDED: Final = b""


class StateCodec:
    """Encodes the states of one aggregate. A state that has ended, None, is no bytes at all."""

    def __init__(self, aggregate: type[Any]) -> None:
        self.aggregate = aggregate
        self.fingerprint = fingerprint(aggregate)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(aggregate)

    def encode(self, state: Any) -> bytes:
        """The state's bytes. Raises PartitionRefused for one that `apply` has made of what cannot be stored."""
        try:
            return _ENDED if state is None else self._encoder.encode(state)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._refusal("cannot be stored", error) from error

    def decode(self, data: bytes) -> Any:
        """The state. Raises PartitionRefused if the bytes are not of this class."""
        try:
            return None if data == _ENDED else self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise self._refusal("cannot be read", error) from error

    def _refusal(self, what: str, error: Exception) -> PartitionRefused:
        name = wire_name(self.aggregate)
        return PartitionRefused(
            f"A state of {name} {what}: {error}.",
            cure=f"`apply` makes states that {name}'s annotations do not allow: mend it, and raise its revision.",
        )


def fingerprint(aggregate: type[Any]) -> bytes:
    """What a stored state depends on: the types of the aggregate's fields, and its `revision`.

    Raises DeclarationError for a field whose values cannot be stored.
    """
    try:
        schema = msgspec.json.schema(aggregate)
    except (TypeError, RuntimeError) as error:
        raise DeclarationError(
            f"The state of {aggregate.__qualname__} cannot be stored: {error}.",
            cure="Use the types that messages may have, or structs of them.",
        ) from error
    others = dict(schema["$defs"])
    own = others.pop(aggregate.__name__)  # a Python rename keeps the wire name, and the states
    text = json.dumps([wire_name(aggregate), aggregate.revision, *_undocumented([own, others])], sort_keys=True)
    return sha256(text.encode()).digest()[:FINGERPRINT_BYTES]


def _undocumented(schema: Any) -> Any:
    """Without docstrings, in which a correction must not cost a replay."""
    if isinstance(schema, dict):
        return {key: _undocumented(value) for key, value in schema.items() if key not in ("description", "title")}
    return [_undocumented(value) for value in schema] if isinstance(schema, list) else schema
