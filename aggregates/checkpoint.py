"""Checkpoints: rounds of blocks with all states and remembered ids of a partition, so that recovery need not begin with
the first commit. They are a cache: verified against the log, and never trusted over it.

A round is written while decisions go on, a block at a time, so no state in it is older than the round's beginning, and
most are newer. Whoever restores it reads the log from the beginning's place on, and skips the events that a state has
already: its version says so (docs/checkpoints.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
from magnetar.schemas import MessageId, Undecodable
from magnetar.schemas.checkpoint_block import CheckpointBlock
from magnetar.schemas.read_rule import Mark

from .cells import Cells, StoredCell
from .id_window import ENTRY_BYTES, FrozenIds, IdWindow

T = TypeVar("T")

_BEGINNING, _STATES, _IDS, _END = b"B", b"S", b"I", b"E"
_BLOCK_BYTES_MAX: Final = 1024 * 1024
"""About how large a block becomes: small enough for any log, large enough that a million states are some hundreds."""

_IDS_PER_STATE: Final = 32
"""How many ids are as much work as one state: they are copied as they are. With fewer, the round of a partition that
remembers a million of them would stretch over more commits, all of which recovery reads."""


class CheckpointUnusable(Exception):
    """This round does not fit the log, or the code that reads it: use an older one, or none."""


class Beginning(msgspec.Struct, frozen=True, array_like=True):
    """What is known of the partition where a round begins."""

    before: Mark
    """A place further up, from which the log must lead to `at`: how the round is verified."""
    at: Mark
    source: MessageId | None
    """Of the last command that was decided."""
    incarnation: str
    """Of the command topic."""
    forgotten_ms: int
    stamps: list[int]
    marks: list[Mark]


class Round:
    """All of one partition, once through."""

    def __init__(self, fingerprint: bytes, owner: bytes, beginning: Beginning, ids: FrozenIds, cells: Cells) -> None:
        self.number = beginning.at.expected - 1
        self.weight = len(cells) + len(ids) // _IDS_PER_STATE
        """How much there is to write, in states."""
        self._fingerprint = fingerprint
        self._owner = owner
        self._beginning = beginning
        self._ids = ids
        self._cells = cells

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The weight up to here, and the encoded block: take one only when all decided commits are stored."""
        done = 0
        for index, (count, body) in enumerate(self._bodies()):
            done += count
            blocks = index + 1 if body == _END else 0
            yield done, CheckpointBlock(self._fingerprint, self._owner, self.number, index, blocks, body).encode()

    def _bodies(self) -> Iterator[tuple[int, bytes]]:
        yield 0, _BEGINNING + msgspec.msgpack.encode(self._beginning)
        for piece in self._ids.pieces():
            yield len(piece) // (ENTRY_BYTES * _IDS_PER_STATE), _IDS + piece
        for cells in self._cells.dump():
            for part in _by_size(cells):
                yield len(part), _STATES + msgspec.msgpack.encode(part)
        yield 0, _END


def _by_size(cells: Sequence[StoredCell]) -> Iterator[list[StoredCell]]:
    part: list[StoredCell] = []
    size = 0
    for cell in cells:
        size += len(cell.id) + len(cell.state) + 16
        part.append(cell)
        if size > _BLOCK_BYTES_MAX:
            yield part
            part, size = [], 0
    if part:
        yield part


class FoundRound(NamedTuple):
    """A round on a checkpoint topic. `after` is the message before its first block."""

    fingerprint: bytes
    owner: bytes
    number: int
    after: MessageId | None
    is_whole: bool


def find_rounds(messages: Iterable[tuple[MessageId, bytes]], before: MessageId | None = None) -> list[FoundRound]:
    """The rounds in the messages of a partition's checkpoint topic behind `before`, in their order.

    What is damaged makes its round incomplete.
    """
    found: dict[tuple[bytes, int], FoundRound] = {}
    expected: dict[tuple[bytes, int], int] = {}
    for id, payload in messages:
        try:
            block = CheckpointBlock.decode(payload)
        except Undecodable:
            before = id
            continue
        name = (block.owner, block.number)
        if block.index == 0:
            found[name] = FoundRound(block.fingerprint, block.owner, block.number, before, False)
            expected[name] = 1
        elif block.index == expected.get(name):
            expected[name] += 1
            if block.blocks == expected[name]:
                found[name] = found[name]._replace(is_whole=True)
        before = id
    return list(found.values())


def blocks_of(wanted: FoundRound, messages: Iterable[tuple[MessageId, bytes]]) -> Iterator[bytes]:
    """The bodies of a round's blocks, in order, out of the messages behind `wanted.after`."""
    expected = 0
    for _, payload in messages:
        try:
            block = CheckpointBlock.decode(payload)
        except Undecodable:
            continue
        if (block.owner, block.number) != (wanted.owner, wanted.number) or block.index != expected:
            continue
        expected += 1
        yield block.body
        if block.blocks == expected:
            return
    raise CheckpointUnusable("a block is missing")


def read_beginning(body: bytes) -> Beginning:
    """The first block's. Raises CheckpointUnusable."""
    if body[:1] != _BEGINNING:
        raise CheckpointUnusable("the first block is no beginning")
    return _decoded(body[1:], Beginning)


def restore_block(body: bytes, cells: Cells, ids: IdWindow) -> None:
    """Take in one of the other blocks. Raises CheckpointUnusable."""
    kind, rest = body[:1], body[1:]
    if kind == _STATES:
        cells.restore(_decoded(rest, list[StoredCell]))
    elif kind == _IDS:
        ids.restore_ids(rest)
    elif kind != _END:
        raise CheckpointUnusable(f"a block is of an unknown kind, {kind!r}")


def _decoded(data: bytes, of: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=of)
    except msgspec.MsgspecError as error:
        raise CheckpointUnusable(f"a block cannot be read: {error}") from error
