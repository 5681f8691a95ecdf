"""The bytes of the fixed envelope: Avro's binary encoding of the few types that our own fields have.

`fastavro` does the users' records. Around them these lines are faster than its general way, and a property test holds
both to the same bytes. Source of the rules: the Avro 1.11 specification, "Binary encoding".
"""

from __future__ import annotations

from .errors import Undecodable

NULL = b"\x00"
_SMALL = tuple(bytes([n << 1]) for n in range(64)) + tuple(
    bytes([(n << 1) & 0x7F | 0x80, n >> 6]) for n in range(64, 8192)
)


def write_long(number: int) -> bytes:
    """Avro's long: zigzag, then seven bits a byte, the lowest first. `number` fits 64 bits."""
    if 0 <= number < 8192:
        return _SMALL[number]
    if 0 <= number < 1048576:
        return bytes((number << 1 & 0x7F | 0x80, number >> 6 & 0x7F | 0x80, number >> 13))
    return write_unsigned(number << 1 if number >= 0 else -number * 2 - 1)


def write_unsigned(number: int) -> bytes:
    """Seven bits a byte, the lowest first: what Avro's long is behind its zigzag, and RowBinary's lengths are."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_bytes(data: bytes) -> bytes:
    """Avro's bytes: the length, then the bytes themselves."""
    return write_long(len(data)) + data


def write_string(text: str) -> bytes:
    """Avro's string: the length of its UTF-8, then that."""
    data = text.encode()
    return write_long(len(data)) + data


def write_optional_string(text: str | None) -> bytes:
    """Avro's `["null", "string"]`."""
    return NULL if text is None else b"\x02" + write_string(text)


def write_optional_long(number: int | None) -> bytes:
    """Avro's `["null", "long"]`."""
    return NULL if number is None else b"\x02" + write_long(number)


def write_map(items: dict[str, str]) -> bytes:
    """Avro's map of strings, in one block."""
    if not items:
        return NULL
    body = b"".join(write_string(k) + write_string(v) for k, v in items.items())
    return write_long(len(items)) + body + NULL


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Read a long at an offset; returns it and the offset behind it. Raises IndexError at the end of the data."""
    byte = data[at]
    if byte < 0x80:
        return byte >> 1 ^ -(byte & 1), at + 1
    rest, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise Undecodable("A number is longer than 64 bits.")
    return rest >> 1 ^ -(rest & 1), at + 1


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Read bytes or a string's bytes; returns them and the offset behind them."""
    length, at = read_long(data, at)
    end = at + length
    if length < 0 or end > len(data):
        raise Undecodable(f"A length of {length} stands at byte {at}, where {len(data) - at} are left.")
    return data[at:end], end


def skip_long(data: bytes, at: int) -> int:
    """The offset behind a long."""
    while data[at] >= 0x80:
        at += 1
    return at + 1


def skip_optional_string(data: bytes, at: int) -> int:
    """The offset behind `["null", "string"]`."""
    if data[at] == 0:
        return at + 1
    _, at = read_branch(data, at)
    return read_bytes(data, at)[1]


def skip_map(data: bytes, at: int) -> int:
    """The offset behind a map of strings."""
    return at + 1 if data[at] == 0 else read_map(data, at)[1]


def read_branch(data: bytes, at: int) -> tuple[bool, int]:
    """Read which branch of `["null", X]` follows: whether it is X, and the offset behind it."""
    byte = data[at]
    if byte == 0:
        return False, at + 1
    if byte == 2:
        return True, at + 1
    raise Undecodable(f"Byte {at} says branch {byte >> 1} of a union of two.")


def read_optional_string(data: bytes, at: int) -> tuple[str | None, int]:
    """Read `["null", "string"]`."""
    if data[at] == 0:
        return None, at + 1
    _, at = read_branch(data, at)
    text, at = read_bytes(data, at)
    return text.decode(), at


def read_optional_long(data: bytes, at: int) -> tuple[int | None, int]:
    """Read `["null", "long"]`."""
    if data[at] == 0:
        return None, at + 1
    _, at = read_branch(data, at)
    return read_long(data, at)


def read_map(data: bytes, at: int) -> tuple[dict[str, str], int]:
    """Read a map of strings, in as many blocks as it was written."""
    items: dict[str, str] = {}
    if data[at] == 0:
        return items, at + 1
    while True:
        count, at = read_long(data, at)
        if count == 0:
            return items, at
        if count < 0:  # a block that says its size in bytes too
            count = -count
            _, at = read_long(data, at)
        for _ in range(count):
            key, at = read_bytes(data, at)
            value, at = read_bytes(data, at)
            items[key.decode()] = value.decode()
