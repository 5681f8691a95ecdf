"""The tables of Folds: one row for each key, and the states of some keys in memory."""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from magnetar.schemas.commit import Fact, meta_of
from magnetar.schemas.derivation import Json
from magnetar.schemas.framing import write_bytes

from .container import container
from .projected_table import ProjectedTable
from .quarantine import Holding
from .quarantining_table import Made

STATES_BYTES_MAX: Final = 32 * 1024 * 1024
"""How much memory the states of one table take, over all partitions: 100,000 of a few fields. Those of the others are
read back from the table when an event needs them."""

_KEPT_BYTES: Final = 250
"""What a state takes besides its bytes and its key's: the two objects, and their entry in a dictionary."""

_KEYS: Final = '{"type": "record", "name": "Keys", "fields": [{"name": "key", "type": "string"}]}'
_TRUE, _FALSE = b"\x01", b"\x00"


class States:
    """The newest states of one partition in their stored form, the oldest look first.

    As objects they would take some times as much, and each is needed once in a range at most.
    """

    def __init__(self, bytes_max: int, *, is_whole: bool) -> None:
        self._states: dict[str, bytes] = {}
        self._bytes = 0
        self._bytes_max = bytes_max
        self.is_whole = is_whole
        """Whether a key that is not here is not in the table either."""

    def of(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Those of these keys that are here."""
        kept = self._states
        return {key: kept[key] for key in keys if key in kept}

    def put(self, states: Mapping[str, bytes]) -> None:
        """States that stand in the table now. Those that were not asked for longest make room for them."""
        kept = self._states
        for key, state in states.items():
            self._drop(key)
            kept[key] = state
            self._bytes += len(state) + len(key) + _KEPT_BYTES
        while self._bytes > self._bytes_max:
            self._drop(next(iter(kept)))
            self.is_whole = False

    def _drop(self, key: str) -> None:
        if (state := self._states.pop(key, None)) is not None:
            self._bytes -= len(state) + len(key) + _KEPT_BYTES


def packed(body: bytes, *, is_deleted: bool) -> bytes:
    """A row's bytes as a state that is kept."""
    return _TRUE if is_deleted else _FALSE + body


class FoldTable(ProjectedTable):
    """One generation of the table of a Fold.

    A row stands for its key as of the commit in `_number`; rows of later commits replace it. What deletes it is a row
    too. `_state` has the row as the fold gave it, byte for byte: columns are for queries.
    """

    unit: ClassVar[str] = "keys"
    counting: ClassVar[str] = "uniqExactIf(_id, {})"
    engine: ClassVar[str] = "ReplacingMergeTree(_number, _is_deleted)"
    order: ClassVar[str] = "_id"
    key_column: ClassVar[str] = "_id"
    hidden: ClassVar[dict[str, str]] = {"_is_deleted": "UInt8", "_state": "String CODEC(ZSTD)"}
    block_fields: ClassVar[list[Json]] = [
        {"name": "_is_deleted", "type": "boolean"},
        {"name": "_state", "type": "bytes"},
    ]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._states: dict[int, States] = {}
        self._seed: Any = self.projection()
        self._changed: dict[int, dict[str, bytes]] = {}

    @property
    def read_from(self) -> str:
        """The newest row of each key."""
        return f"{self.name} FINAL"

    def forget(self, partition: int) -> None:
        """Begin with what is in the table."""
        bytes_max = STATES_BYTES_MAX // self._source.partitions
        self._states[partition] = States(bytes_max, is_whole=not self._last[partition])

    def rows(self, partition: int, facts: Sequence[Fact], holding: Holding, /) -> Made:
        """The row of each key after its last event."""
        changed, last, kept = dict[str, Any](), dict[str, Fact](), dict[str, bytes]()
        before = self._before(partition, (fact.aggregate_id for fact in facts))
        takes_meta, seed, checked = self._contract.takes_meta, self._seed, self.checked
        for fact in facts:
            if (holding.known or holding.settled) and holding.takes(fact):
                continue
            key = fact.aggregate_id
            state = changed[key] if key in changed else self._unpacked(before.get(key))
            apply = (seed if state is None else state).apply
            try:
                after = apply(fact.event, meta_of(fact)) if takes_meta else apply(fact.event)
                changed[key] = None if after is None else checked(after)
            except Exception as error:  # noqa: BLE001 - the projection's code is anybody's: its key is held
                self.hold(holding, fact, error)
            else:
                last[key] = fact
        rows, misfits = list[bytes](), list[str]()
        for key, state in changed.items():
            try:
                body = self._codec.encode(seed if state is None else state)
            except Exception:  # noqa: BLE001 - as above; which of its events it was is found out
                misfits.append(key)
                continue
            kept[key] = packed(body, is_deleted=state is None)
            rows.append(self._row(last[key], body, is_deleted=state is None))
        for key in misfits:
            rows += self._as_far_as_it_goes(key, self._unpacked(before.get(key)), facts, kept, holding)
        self._changed[partition] = kept
        return Made(rows, sum(1 for key in kept if key not in before))

    def _as_far_as_it_goes(
        self, key: str, state: Any, facts: Sequence[Fact], kept: dict[str, bytes], holding: Holding
    ) -> list[bytes]:
        """The row of a key before the first event that makes one which cannot be stored; that one is held."""
        row: list[bytes] = []
        for fact in (each for each in facts if each.aggregate_id == key):
            if holding.takes(fact):
                continue
            apply = (self._seed if state is None else state).apply
            try:
                after = apply(fact.event, meta_of(fact)) if self._contract.takes_meta else apply(fact.event)
                body = self._codec.encode(self._seed if after is None else after)
            except Exception as error:  # noqa: BLE001 - as above
                self.hold(holding, fact, error)
                continue
            kept[key], state = packed(body, is_deleted=after is None), after
            row = [self._row(fact, body, is_deleted=after is None)]
        return row

    def is_whole(self, counted: int, below: int, all_of_it: int, *, has_range: bool) -> bool:
        """A key's older row may be gone where the range has a newer one; the key never is."""
        return below <= counted <= all_of_it if has_range else below == counted == all_of_it

    def keep(self, partition: int) -> None:
        """Keep what was folded: it is in the table."""
        self._states[partition].put(self._changed.pop(partition))

    def _before(self, partition: int, keys: Iterable[str]) -> dict[str, bytes]:
        """The states of these keys as of before the range that is folded, of those that have a row in the table."""
        states, keys = self._states[partition], dict.fromkeys(keys)
        found = states.of(keys)
        lacking = [] if states.is_whole else [key for key in keys if key not in found]
        return found | self._read_back(partition, lacking)

    def _row(self, fact: Fact, body: bytes, key: bytes = b"", *, is_deleted: bool) -> bytes:
        return self.framed(fact, (_TRUE if is_deleted else _FALSE) + write_bytes(body) + key + body)

    def _unpacked(self, state: bytes | None) -> Any:
        """The object that a state is; None for a row that is not there, or not any more."""
        if state is None or state[:1] == _TRUE:
            return None
        return self._codec.decode(io.BytesIO(state[1:]))

    def _read_back(self, partition: int, keys: Sequence[str]) -> dict[str, bytes]:
        """The states of these keys in the table, all of which are of before the range that is folded."""
        return {
            key: packed(b64decode(state), is_deleted=is_deleted)
            for key, is_deleted, state in self._stored(partition, keys)
        }

    def _stored(self, partition: int, keys: Sequence[str], *more: str) -> Sequence[Sequence[Any]]:
        """What the newest rows of these keys have: the key, whether it is deleted, the state, and more columns."""
        if not keys:
            return []
        columns = ", ".join([self.key_column, "_is_deleted", "base64Encode(_state)", *more])
        blocks = container(_KEYS, [write_bytes(key.encode()) for key in keys])
        with self._block(partition, blocks, "key String") as block:
            return self._store.query(
                f"SELECT {columns} FROM {self.name} WHERE {self.of(partition)} AND {self.key_column} IN "
                f"(SELECT key FROM {block.keys}) "
                f"ORDER BY _number DESC, _version DESC LIMIT 1 BY {self.key_column}",
                block=block,
            )
