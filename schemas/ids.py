"""Command ids: UUID version 7 (RFC 9562), whose first 48 bits say when they were made."""

from __future__ import annotations

import hashlib
import re
from typing import Final

NIL: Final = "00000000-0000-0000-0000-000000000000"

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

AGGREGATE_ID_BYTES_MAX: Final = 512


def uuid7(made_at_ms: int, randomness: int) -> str:
    """A UUIDv7 from a time in milliseconds since 1970 and 74 random bits."""
    rand_a, rand_b = randomness >> 62 & 0xFFF, randomness & (1 << 62) - 1
    number = (made_at_ms & (1 << 48) - 1) << 80 | 7 << 76 | rand_a << 64 | 2 << 62 | rand_b
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


SETTLING_MS: Final = 10_000
"""The ids of commands that settle a parked one are made at whole multiples of this time, a slice of the id window."""


def settling_id(position: str, now_ms: int) -> str:
    """The id of a command that settles what was parked at this position.

    Whoever settles it, and however: all of these ids are equal but for the time in them, by which `same_settling`
    knows them. So the first of them counts (docs/adr/0010).
    """
    digest = hashlib.blake2b(position.encode(), digest_size=10).digest()
    return uuid7(now_ms - now_ms % SETTLING_MS, int.from_bytes(digest))


def same_settling(command_id: str) -> str:
    """What the ids of all commands have in common that settle the same parked command: what follows the time."""
    return command_id[14:]


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID of any version in lower case with hyphens."""
    return _UUID.fullmatch(text) is not None


def is_uuid7(text: str) -> bool:
    """Whether the text is a UUIDv7 in lower case with hyphens."""
    return _UUID7.fullmatch(text) is not None


def made_at_ms(command_id: str) -> int:
    """When a UUIDv7 was made, in milliseconds since 1970."""
    return int(command_id[:8] + command_id[9:13], 16)


def why_bad_aggregate_id(aggregate_id: str) -> str | None:
    """Why this cannot be an aggregate's id, or None. Ids are 1 to 512 bytes of UTF-8 without control characters."""
    if not aggregate_id:
        return "the aggregate id is empty"
    if not aggregate_id.isprintable():  # a surrogate is not, so what follows can be encoded
        first = next(character for character in aggregate_id if not character.isprintable())
        return f"the aggregate id has a character that cannot be printed, U+{ord(first):04X}"
    if len(aggregate_id) > AGGREGATE_ID_BYTES_MAX or len(aggregate_id.encode()) > AGGREGATE_ID_BYTES_MAX:
        return f"the aggregate id is {len(aggregate_id.encode())} bytes long; {AGGREGATE_ID_BYTES_MAX} are allowed"
    return None
