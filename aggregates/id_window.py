"""Which command ids have been decided lately, and by which commit."""

from __future__ import annotations

from typing import Final

WINDOW_MS: Final = 10 * 60 * 1000
"""How long after its making a command id may be published and still be told from a repeat."""

IDS_MAX: Final = 1_000_000
"""How many ids a partition remembers at most: about 150 MB. With more within the window, the window is shorter."""

_BUCKETS: Final = 8
"""Ids are forgotten by the bucket; each is an eighth of what is kept, which is twice the window."""


class IdWindow:
    """Remembers command ids with the number of their commit, measured in the log's publish times, never on a clock.

    Ids are kept for twice the window: a margin for publishers' clocks. A command that was published later than the
    window after its id was made, or whose id is as old as one that had to be forgotten, could be a repeat that nobody
    remembers: it is *expired*.
    """

    def __init__(self, *, window_ms: int = WINDOW_MS, ids_max: int = IDS_MAX) -> None:
        self._window_ms = window_ms
        self._ids_max = ids_max
        self._bucket_ms = max(1, 2 * window_ms // _BUCKETS)
        self._buckets: list[tuple[int, dict[str, int]]] = [(0, {})]
        self._size = 0
        self._latest_ms = 0
        self._forgotten_ms = -1

    def __len__(self) -> int:
        return self._size

    def find(self, command_id: str) -> int | None:
        """The number of the commit that this id led to, if it is remembered."""
        for _, ids in reversed(self._buckets):
            if (number := ids.get(command_id)) is not None:
                return number
        return None

    def is_expired(self, made_at_ms: int, published_at_ms: int) -> bool:
        """Whether a command whose id is not remembered could be a repeat all the same."""
        return published_at_ms - made_at_ms > self._window_ms or made_at_ms <= self._forgotten_ms

    def remember(self, command_id: str, number: int, published_at_ms: int) -> None:
        """Remember what a command became; forget what is too old, or too much."""
        self._latest_ms = max(self._latest_ms, published_at_ms)
        start_ms, ids = self._buckets[-1]
        full = len(ids) >= max(1, self._ids_max // _BUCKETS)
        if full or self._latest_ms - start_ms >= self._bucket_ms:
            ids = {}
            self._buckets.append((self._latest_ms, ids))
            self._forget()
        ids[command_id] = number
        self._size += 1

    def _forget(self) -> None:
        while len(self._buckets) > 1:
            ends_ms = self._buckets[1][0]
            too_old = self._latest_ms - ends_ms > 2 * self._window_ms
            if not too_old and self._size < self._ids_max:
                return
            _, ids = self._buckets.pop(0)
            self._size -= len(ids)
            if ids and not too_old:
                self._forgotten_ms = max(self._forgotten_ms, ends_ms)
