"""The tables of Folds: one row for each key, and the states of some keys in memory."""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from magnetar.schemas.commit import Fact, meta_of
from magnetar.schemas.derivation import Json
from magnetar.schemas.framing import write_bytes

from .columns import literal
from .container import container
from .projected_table import ProjectedTable
from .quarantine import Holding
from .quarantining_table import Made

STATES_MAX: Final = 120_000
"""How many states of one table are kept in memory, over all partitions. Those of the others are read back from the
table when an event needs them: a state of a few fields takes about half a kilobyte as a Python object."""

_KEYS: Final = '{"type": "record", "name": "Keys", "fields": [{"name": "key", "type": "string"}]}'
_TRUE, _FALSE = b"\x01", b"\x00"


class States:
    """The newest states of one partition, the oldest look first. None stands for a row that is not there."""

    def __init__(self, states_max: int, *, is_whole: bool) -> None:
        self._states: dict[str, Any] = {}
        self._states_max = states_max
        self._is_whole = is_whole
        """Whether a key that is not here is not in the table either."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys of which only the table knows."""
        return [] if self._is_whole else [key for key in dict.fromkeys(keys) if key not in self._states]

    def __contains__(self, key: str) -> bool:
        return key in self._states

    def take(self, key: str) -> Any:
        """A state that is known."""
        return self._states.get(key)

    def put(self, states: dict[str, Any]) -> None:
        """States that stand in the table now. Those that were not asked for longest make room for them."""
        kept = self._states
        for key in states:
            kept.pop(key, None)
        kept.update(states)
        while len(kept) > self._states_max:
            del kept[next(iter(kept))]
            self._is_whole = False


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
        self._changed: dict[int, dict[str, Any]] = {}

    @property
    def read_from(self) -> str:
        """The newest row of each key."""
        return f"{self.name} FINAL"

    def forget(self, partition: int) -> None:
        """Begin with what is in the table."""
        states_max = max(1, STATES_MAX // self._source.partitions)
        self._states[partition] = States(states_max, is_whole=not self._last[partition])

    def rows(self, partition: int, facts: Sequence[Fact], holding: Holding, /) -> Made:
        """The row of each key after its last event."""
        states, changed, last = self._states[partition], dict[str, Any](), dict[str, Fact]()
        before = self._read_back(partition, states.missing(fact.aggregate_id for fact in facts))
        takes_meta, seed, checked = self._contract.takes_meta, self._seed, self.checked
        for fact in facts:
            if (holding.known or holding.settled) and holding.takes(fact):
                continue
            key = fact.aggregate_id
            state = changed[key] if key in changed else before[key] if key in before else states.take(key)
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
                rows.append(self._row(last[key], state))
            except Exception:  # noqa: BLE001 - as above; which of its events it was is found out
                misfits.append(key)
        for key in misfits:
            state = before[key] if key in before else states.take(key)
            rows += self._as_far_as_it_goes(key, state, facts, changed, holding)
        new = sum(1 for key in changed if key not in before and key not in states)
        self._changed[partition] = changed
        return Made(rows, new)

    def _as_far_as_it_goes(
        self, key: str, state: Any, facts: Sequence[Fact], changed: dict[str, Any], holding: Holding
    ) -> list[bytes]:
        """The row of a key before the first event that makes one which cannot be stored; that one is held."""
        row: list[bytes] = []
        del changed[key]
        for fact in (each for each in facts if each.aggregate_id == key):
            if holding.takes(fact):
                continue
            apply = (self._seed if state is None else state).apply
            try:
                after = apply(fact.event, meta_of(fact)) if self._contract.takes_meta else apply(fact.event)
                row = [self._row(fact, after)]
            except Exception as error:  # noqa: BLE001 - as above
                self.hold(holding, fact, error)
                continue
            changed[key] = state = after
        return row

    def is_whole(self, counted: int, below: int, all_of_it: int, *, has_range: bool) -> bool:
        """A key's older row may be gone where the range has a newer one; the key never is."""
        return below <= counted <= all_of_it if has_range else below == counted == all_of_it

    def keep(self, partition: int) -> None:
        """Keep what was folded: it is in the table."""
        self._states[partition].put(self._changed.pop(partition))

    def _row(self, fact: Fact, state: Any, key: bytes = b"") -> bytes:
        body = self._codec.encode(self._seed if state is None else state)
        return self.framed(fact, (_TRUE if state is None else _FALSE) + write_bytes(body) + key + body)

    def _read_back(self, partition: int, keys: Sequence[str]) -> dict[str, Any]:
        """The states of these keys in the table, all of which are of before the range that is folded."""
        decode = self._codec.decode
        return {
            key: None if is_deleted else decode(io.BytesIO(b64decode(state)))
            for key, is_deleted, state in self._stored(partition, keys)
        }

    def _stored(self, partition: int, keys: Sequence[str], *more: str) -> Sequence[Sequence[Any]]:
        """What the newest rows of these keys have: the key, whether it is deleted, the state, and more columns."""
        if not keys:
            return []
        columns = ", ".join([self.key_column, "_is_deleted", "base64Encode(_state)", *more])
        blocks = container(_KEYS, [write_bytes(key.encode()) for key in keys])
        with self._block(partition, blocks) as path:
            return self._store.query(
                f"SELECT {columns} FROM {self.name} WHERE {self.of(partition)} AND {self.key_column} IN "
                f"(SELECT key FROM file({path}, 'Avro', {literal('key String')})) "
                f"ORDER BY _number DESC LIMIT 1 BY {self.key_column}"
            )
