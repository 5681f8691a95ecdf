"""The states of one partition's aggregates: those in use in memory, the others on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from magnetar.schemas import PartitionRefused
from msgspec import Struct

from .budget import Allowance, Budget
from .state_codec import StateCodec

PACKED_BYTES_MAX: Final = 1024
"""A state up to this size is kept in its stored form, and a larger one as objects. A small state is some fourteen
objects, and those of a million do not fit into the processor's caches: to touch them takes longer than to decode one
piece of bytes, which has two thirds of their size. A large one would take longer to decode."""

_SPILLED_AT_ONCE: Final = 1000
_DUMPED_AT_ONCE: Final = 2000


Cell: TypeAlias = tuple[int, Any]
"""An aggregate: its version, and its state, which is None if it has ended. A plain tuple: one is made for each command,
and a named one takes three times as long."""

_Kept: TypeAlias = tuple[int, Any]
"""A cell in memory, whose state may be in its stored form: then it is `bytes`, which no state is."""


class StoredCell(Struct, frozen=True, gc=False, array_like=True):
    """A cell in its stored form. One is made for each cell of a round: a named tuple takes three times as long."""

    id: str
    version: int
    state: bytes


class Spill(Protocol):
    """Where the states go that do not fit into memory. It is nobody else's, and need not outlive its process."""

    def __len__(self) -> int:
        """How many cells there are."""
        ...

    def load(self, id: str) -> tuple[int, bytes] | None:
        """Version and state of an aggregate, as they were stored last."""
        ...

    def store(self, cells: Sequence[StoredCell]) -> None:
        """Store these, in the place of older ones of the same ids."""
        ...

    def behind(self, id: str, count: int) -> Sequence[StoredCell]:
        """So many cells with greater ids, in the order of their ids."""
        ...

    def close(self) -> None:
        """Throw everything away. Never raises."""
        ...


class Cells:
    """Cells by aggregate id.

    What was touched lately is *young*. When there are too many in memory, of all that share the allowance, those that
    were not touched since the last change of generations go to the spill.
    """

    def __init__(self, codec: StateCodec, *, allowance: Allowance | None = None, spill: Spill | None = None) -> None:
        """Without a spill, all stay in memory."""
        self._codec = codec
        self._allowance = Budget().states if allowance is None else allowance
        self._spill = spill
        self._refusal: PartitionRefused | None = None
        self._young: dict[str, _Kept] = {}
        self._old: dict[str, _Kept] = {}

    @property
    def fingerprint(self) -> bytes:
        """What the stored form depends on."""
        return self._codec.fingerprint

    def __len__(self) -> int:
        """How many cells there are; one that is in memory and on disk counts twice."""
        return self.held() + (len(self._spill) if self._spill else 0)

    def __contains__(self, id: str) -> bool:
        return id in self._young or self._fetch(id) is not None

    def get(self, id: str) -> Cell | None:
        """The cell of an aggregate, or None if nothing has happened to it. Raises PartitionRefused if it has become
        what its class cannot read."""
        kept = self._young.get(id) or self._fetch(id)
        if kept is None or type(kept[1]) is not bytes:
            return kept
        return kept[0], self._codec.decode(kept[1])

    def put(self, id: str, version: int, state: Any) -> None:
        """Put the cell of an aggregate that `get` was asked for."""
        before = self._young.get(id)
        if before is None or type(before[1]) is bytes:  # one that is large is not encoded time and again
            state = self._packed(state)
        self._young[id] = (version, state)

    def settle(self) -> None:
        """Let the states go to disk that are too many; call it between chunks.

        They may be those of other cells with the same allowance, if there are more of them. Raises PartitionRefused if
        one of these cells should have gone, now or before, and cannot be stored.
        """
        if self._spill is None:
            return
        self._allowance.settle(self)
        if self._refusal is not None:
            raise self._refusal

    def held(self) -> int:
        """How many states are in memory."""
        return len(self._young) + len(self._old)

    def give_up(self, count: int) -> None:
        """Let so many states go to disk, or a thousand of them. One that cannot be stored stays."""
        if self._spill is None:
            return
        if not self._old:
            self._old, self._young = self._young, {}
        taken = self._taken(min(count, _SPILLED_AT_ONCE))
        try:
            self._spill.store(taken)
        except BaseException:  # a full disk: whoever goes on all the same must not find older states
            self._keep(taken)
            raise

    def touched(self) -> Iterator[tuple[str, Cell]]:
        """Those that were asked for lately."""
        for id in list(self._young):
            if (cell := self.get(id)) is not None:
                yield id, cell

    def close(self) -> None:
        """Throw everything away."""
        self._allowance.leave(self)
        if self._spill is not None:
            self._spill.close()

    # --- stored form ------------------------------------------------------------------------------------------------

    def restore(self, cells: Sequence[StoredCell]) -> None:
        """Take in cells of a checkpoint."""
        self._keep(cells)
        self.settle()

    def dump(self) -> Iterator[list[StoredCell]]:
        """All cells that are there now, each as it is when its turn comes, by the two thousand."""
        ids = iter([*self._young, *self._old])
        while batch := list(islice(ids, _DUMPED_AT_ONCE)):
            yield [stored for id in batch if (stored := self._stored_cell(id)) is not None]
        last = ""
        while self._spill is not None and (cells := self._spill.behind(last, _DUMPED_AT_ONCE)):
            last = cells[-1].id
            yield [self._stored_cell(cell.id) or cell for cell in cells]

    def _stored_cell(self, id: str) -> StoredCell | None:
        kept = self._young.get(id) or self._old.get(id)
        if kept is None and self._spill is not None:
            kept = self._spill.load(id)
        return None if kept is None else StoredCell(id, kept[0], self._stored_form(kept[1]))

    def _stored_form(self, state: Any) -> bytes:
        return state if type(state) is bytes else self._codec.encode(state)

    def _packed(self, state: Any) -> Any:
        """The state as it is kept: one that cannot be stored as it is, which is said where it has to be stored."""
        try:
            data = self._codec.encode(state)
        except PartitionRefused:
            return state
        return data if len(data) <= PACKED_BYTES_MAX else state

    def _keep(self, cells: Sequence[StoredCell]) -> None:
        """Keep these in memory, behind all that have been asked for."""
        self._old.update((cell.id, (cell.version, cell.state)) for cell in cells)

    def _fetch(self, id: str) -> _Kept | None:
        """Find it outside of the young generation, and bring it there."""
        kept = self._old.pop(id, None)
        if kept is None and self._spill is not None:
            kept = self._spill.load(id)
        if kept is None:
            return None
        if type(kept[1]) is bytes and len(kept[1]) > PACKED_BYTES_MAX:
            kept = kept[0], self._codec.decode(kept[1])
        self._young[id] = kept
        return kept

    def _taken(self, count: int) -> list[StoredCell]:
        """Take so many out of memory."""
        taken: list[StoredCell] = []
        while self._old and len(taken) < count:
            id, (version, state) = self._old.popitem()
            try:
                taken.append(StoredCell(id, version, self._stored_form(state)))
            except PartitionRefused as refusal:  # this partition's fault, and it may be another that asks for room
                self._young[id] = (version, state)
                self._refusal = refusal
        return taken
