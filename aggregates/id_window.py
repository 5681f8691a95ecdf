"""Which command ids have been decided lately, and by which commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from .budget import Allowance, Budget

WINDOW_MS: Final = 10 * 60 * 1000
"""How long after its making a command id may be published and still be told from a repeat."""

_SLICES_IN_WINDOW: Final = 60
"""Ids are forgotten by the slice of time in which they were made: 10 s of a window of 10 minutes."""

_STAMPS: Final = 63
"""The log's time is the median of so many publish times: a few publishers whose clocks are wrong do not move it."""

_ID_BYTES: Final = 16
ENTRY_BYTES: Final = _ID_BYTES + 8
_IDS_PER_BIN: Final = 32


def packed(command_id: str) -> bytes:
    """The 16 bytes of a UUIDv7, by which the window knows it. Raises ValueError for what is no UUID."""
    return bytes.fromhex(command_id.replace("-", ""))


def made_at_ms(id: bytes) -> int:
    """When the id was made, in milliseconds since 1970."""
    return int.from_bytes(id[:6])


class IdWindow:
    """Remembers command ids with the number of their commit, measured in the log's publish times, never on a clock.

    Ids lie in slices by the time in their UUIDv7, and are forgotten by the slice: when it is older than twice the
    window (a margin for publishers' clocks), or when the windows that share an allowance hold too many, and this one
    the most. An id that was made before the end of a forgotten slice could be a repeat that nobody remembers: it is
    *expired*, as is one that was published later than the window after it was made. So no id is decided twice, however
    wrong clocks are and however late one lands (docs/adr/0003).
    """

    def __init__(self, *, window_ms: int = WINDOW_MS, allowance: Allowance | None = None) -> None:
        self._window_ms = window_ms
        self._allowance = Budget().ids if allowance is None else allowance
        self._slice_ms = max(1, window_ms // _SLICES_IN_WINDOW)
        self._slices: dict[int, _Slice] = {}
        self._size = 0
        self._stamps: deque[int] = deque(maxlen=_STAMPS)
        self._since_look = 0
        self._forgotten_ms = -1
        """All ids that were made at or before this time are forgotten."""

    def __len__(self) -> int:
        return self._size

    def find(self, id: bytes) -> int | None:
        """The number of the commit that this id (`packed`) led to, if it is remembered."""
        found = self._slices.get(int.from_bytes(id[:6]) // self._slice_ms)
        return None if found is None else found.find(id)

    def find_at_any_time(self, id: bytes) -> int | None:
        """The same for an id that was made at the start of any slice, and is equal to this one but for that time."""
        starts = (index * self._slice_ms for index in sorted(self._slices))
        found = (self.find(start.to_bytes(6) + id[6:]) for start in starts)
        return next((number for number in found if number is not None), None)

    def is_expired(self, id: bytes, published_at_ms: int) -> bool:
        """Whether a command whose id is not remembered could be a repeat all the same."""
        made_ms = made_at_ms(id)
        return published_at_ms - made_ms > self._window_ms or made_ms <= self._forgotten_ms

    def remember(self, id: bytes, number: int, published_at_ms: int) -> None:
        """Remember what a command became; forget what is too old, or too much."""
        index = int.from_bytes(id[:6]) // self._slice_ms
        if (index + 1) * self._slice_ms - 1 <= self._forgotten_ms:
            return  # parked as expired: it will be again
        found = self._slices.get(index)
        if found is None:
            found = self._slices[index] = _Slice()
        found.add(id, number.to_bytes(8, "little"))
        self._size += 1
        self._stamps.append(published_at_ms)
        self._since_look += 1
        if self._since_look >= _STAMPS:
            self._since_look = 0
            self._forget_older(sorted(self._stamps)[len(self._stamps) // 2] - 2 * self._window_ms)
            self._allowance.settle(self)

    def held(self) -> int:
        """How many ids there are."""
        return self._size

    def give_up(self, count: int) -> None:
        """Forget the oldest slices that hold so many. The newest one stays, however large it is."""
        wanted = self._size - count
        for index in sorted(self._slices)[:-1]:
            if self._size <= wanted:
                return
            self._forget(index)

    def close(self) -> None:
        """Throw everything away."""
        self._allowance.leave(self)

    def _forget_older(self, oldest_ms: int) -> None:
        for index in sorted(self._slices)[:-1]:
            if (index + 1) * self._slice_ms > oldest_ms:
                return
            self._forget(index)

    def _forget(self, index: int) -> None:
        self._size -= len(self._slices.pop(index))
        self._forgotten_ms = max(self._forgotten_ms, (index + 1) * self._slice_ms - 1)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def freeze(self) -> FrozenIds:
        """What stands in the window now; later changes do not touch it."""
        slices = [each.parts() for each in self._slices.values()]
        return FrozenIds(self._forgotten_ms, list(self._stamps), slices, self._size)

    def restore(self, forgotten_ms: int, stamps: list[int]) -> None:
        """Become the window that was frozen; its slices follow, by `restore_ids`."""
        self._forgotten_ms = forgotten_ms
        self._stamps.extend(stamps)

    def restore_ids(self, entries: bytes) -> None:
        """Take in ids that were frozen, each with the number of its commit."""
        for at in range(0, len(entries), ENTRY_BYTES):
            entry = entries[at : at + ENTRY_BYTES]
            index = int.from_bytes(entry[:6]) // self._slice_ms
            found = self._slices.get(index)
            if found is None:
                found = self._slices[index] = _Slice()
            found.add(entry[:_ID_BYTES], entry[_ID_BYTES:])
            self._size += 1
        self._allowance.settle(self)


class FrozenIds:
    """The ids that a window had at one moment, to be written down piece by piece."""

    def __init__(self, forgotten_ms: int, stamps: list[int], slices: list[list[bytes]], size: int) -> None:
        self.forgotten_ms = forgotten_ms
        self.stamps = stamps
        self._slices = slices
        self._size = size

    def __len__(self) -> int:
        return self._size

    def pieces(self) -> Iterator[bytes]:
        """All entries, as `IdWindow.restore_ids` takes them, in pieces of some ten thousand ids at most."""
        for parts in self._slices:
            for start in range(0, len(parts), 512):
                yield b"".join(parts[start : start + 512])


class _Slice:
    """The ids that were made in one stretch of time, in bins of packed entries: a look searches 32 ids at most, give or
    take, and an id costs little more than its 24 bytes."""

    __slots__ = ("_bins", "_mask", "_size")

    def __init__(self) -> None:
        self._bins = [bytearray()]
        self._mask = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, id: bytes) -> int | None:
        entries = self._bins[hash(id) & self._mask]
        at = entries.find(id)
        while at % ENTRY_BYTES > 0:  # the same bytes across two entries; -1 % 24 is 23, and must end it
            if at < 0:
                return None
            at = entries.find(id, at + 1)
        return int.from_bytes(entries[at + _ID_BYTES : at + ENTRY_BYTES], "little")

    def add(self, id: bytes, number: bytes) -> None:
        self._size += 1
        if self._size > _IDS_PER_BIN * (self._mask + 1):
            self._split()
        self._bins[hash(id) & self._mask] += id + number

    def _split(self) -> None:
        bins = [bytearray() for _ in range(2 * len(self._bins))]
        mask = len(bins) - 1
        for old in self._bins:
            for at in range(0, len(old), ENTRY_BYTES):
                bins[hash(bytes(old[at : at + _ID_BYTES])) & mask] += old[at : at + ENTRY_BYTES]
        self._bins, self._mask = bins, mask

    def parts(self) -> list[bytes]:
        return [bytes(each) for each in self._bins]
