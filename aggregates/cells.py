"""The states of one partition's aggregates: those in use in memory, the others on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from magnetar.schemas import PartitionRefused
from msgspec import Struct

from .budget import Allowance, Budget
from .state_codec import StateCodec

_SPILLED_AT_ONCE: Final = 1000
_DUMPED_AT_ONCE: Final = 2000


Cell: TypeAlias = tuple[int, Any]
"""An aggregate: its version, and its state, which is None if it has ended. A plain tuple: one is made for each command,
and a named one takes three times as long."""


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
    were not touched since the last change of generations go to the spill. A cell that came from a checkpoint stays in
    its stored form until it is used.
    """

    def __init__(self, codec: StateCodec, *, allowance: Allowance | None = None, spill: Spill | None = None) -> None:
        """Without a spill, all stay in memory."""
        self._codec = codec
        self._allowance = Budget().states if allowance is None else allowance
        self._spill = spill
        self._refusal: PartitionRefused | None = None
        self._young: dict[str, Cell] = {}
        self._old: dict[str, Cell] = {}
        self._stored: dict[str, tuple[int, bytes]] = {}

    @property
    def fingerprint(self) -> bytes:
        """What the stored form depends on."""
        return self._codec.fingerprint

    def __len__(self) -> int:
        """How many cells there are; one that is in memory and on disk counts twice."""
        return len(self._young) + len(self._old) + len(self._stored) + (len(self._spill) if self._spill else 0)

    def get(self, id: str) -> Cell | None:
        """The cell of an aggregate, or None if nothing has happened to it."""
        return self._young.get(id) or self._fetch(id)

    def put(self, id: str, version: int, state: Any) -> None:
        """Put the cell of an aggregate that `get` was asked for."""
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
        return len(self._young) + len(self._old) + len(self._stored)

    def give_up(self, count: int) -> None:
        """Let so many states go to disk, or a thousand of them. One that cannot be stored stays."""
        if self._spill is None:
            return
        if not self._old and not self._stored:
            self._old, self._young = self._young, {}
        taken = self._taken(min(count, _SPILLED_AT_ONCE))
        try:
            self._spill.store(taken)
        except BaseException:  # a full disk: whoever goes on all the same must not find older states
            self._stored.update((cell.id, (cell.version, cell.state)) for cell in taken)
            raise

    def in_memory(self) -> Iterator[tuple[str, Cell]]:
        """Those that are decoded."""
        yield from list(self._young.items())
        yield from list(self._old.items())

    def close(self) -> None:
        """Throw everything away."""
        self._allowance.leave(self)
        if self._spill is not None:
            self._spill.close()

    # --- stored form ------------------------------------------------------------------------------------------------

    def restore(self, cells: Sequence[StoredCell]) -> None:
        """Take in cells of a checkpoint."""
        self._stored.update((cell.id, (cell.version, cell.state)) for cell in cells)
        self.settle()

    def dump(self) -> Iterator[list[StoredCell]]:
        """All cells that are there now, each as it is when its turn comes, by the two thousand."""
        ids = iter([*self._young, *self._old, *self._stored])
        while batch := list(islice(ids, _DUMPED_AT_ONCE)):
            yield [stored for id in batch if (stored := self._stored_cell(id)) is not None]
        last = ""
        while self._spill is not None and (cells := self._spill.behind(last, _DUMPED_AT_ONCE)):
            last = cells[-1].id
            yield [self._stored_cell(cell.id) or cell for cell in cells]

    def _stored_cell(self, id: str) -> StoredCell | None:
        cell = self._young.get(id) or self._old.get(id)
        if cell is not None:
            return StoredCell(id, cell[0], self._codec.encode(cell[1]))
        found = self._stored.get(id)
        if found is None and self._spill is not None:
            found = self._spill.load(id)
        return None if found is None else StoredCell(id, *found)

    def _fetch(self, id: str) -> Cell | None:
        """Find it outside of the young generation, and bring it there."""
        cell = self._old.pop(id, None)
        if cell is None:
            found = self._stored.pop(id, None)
            if found is None and self._spill is not None:
                found = self._spill.load(id)
            if found is None:
                return None
            cell = (found[0], self._codec.decode(found[1]))
        self._young[id] = cell
        return cell

    def _taken(self, count: int) -> list[StoredCell]:
        """Take so many out of memory, those from the checkpoint first: nobody has asked for them yet."""
        taken: list[StoredCell] = []
        while self._stored and len(taken) < count:
            id, found = self._stored.popitem()
            taken.append(StoredCell(id, *found))
        while self._old and len(taken) < count:
            id, cell = self._old.popitem()
            try:
                taken.append(StoredCell(id, cell[0], self._codec.encode(cell[1])))
            except PartitionRefused as refusal:  # this partition's fault, and it may be another that asks for room
                self._young[id] = cell
                self._refusal = refusal
        return taken
