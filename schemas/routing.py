"""Which partition an aggregate lives on: the same answer in every language (docs/wire-format.md)."""

from __future__ import annotations

_MASK = 0xFFFFFFFF


def murmur3_32(data: bytes) -> int:
    """MurmurHash3, x86, 32 bits, seed 0 (Austin Appleby, public domain description), as an unsigned number."""
    h = 0
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0xCC9E2D51 & _MASK
        k = (k << 15 | k >> 17) * 0x1B873593 & _MASK
        h ^= k
        h = ((h << 13 | h >> 19) & _MASK) * 5 + 0xE6546B64 & _MASK
    if tail := data[whole:]:
        k = int.from_bytes(tail, "little") * 0xCC9E2D51 & _MASK
        h ^= (k << 15 | k >> 17) * 0x1B873593 & _MASK
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK
    return h ^ h >> 16


def partition_of(aggregate_id: str, partitions: int) -> int:
    """The partition of an aggregate: `(murmur3_32(utf-8 id, seed 0) & 0x7fffffff) mod partitions`."""
    return (murmur3_32(aggregate_id.encode()) & 0x7FFFFFFF) % partitions
