"""The shipped tables of a Rows and of a Fold, with a model in the place of what they ask of ClickHouse."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import fastavro
from magnetar.projections import Fold, Rows
from magnetar.projections.fold_table import FoldTable, States
from magnetar.projections.projected_table import _BLOCK, ProjectedTable, Source
from magnetar.projections.quarantine import Quarantine
from magnetar.projections.range_loop import Lease, Range
from magnetar.projections.rows_table import RowsTable

from tests.simulation.account import SCHEMAS, Deposited, Emptied, FeeCharged, Withdrawn
from tests.simulation.client import PARTITIONS
from tests.simulation.sim_store import Insert, SimStore
from tests.simulation.stage import Stage

ID, VERSION, _, NUMBER = range(4)
"""Where they stand in a row; the fields come last."""
STATE_BYTES_MAX: Final = 400
"""Room for one state of a partition's two: the other one is read back from the table."""


class Booking(Rows):
    """What came in and went out: nothing for a fee, and two rows for what is large."""

    amount: int
    balance: int

    @classmethod
    def project(cls, event: Deposited | Withdrawn | FeeCharged | Emptied) -> Iterator[Self]:
        """Rows of one event."""
        match event:
            case Deposited(amount, balance, _) if amount > 5:
                yield cls(5, balance)
                yield cls(amount - 5, balance)
            case Deposited(amount, balance, _):
                yield cls(amount, balance)
            case Withdrawn(amount, balance, _):
                yield cls(-amount, balance)
            case Emptied(amount, _):
                yield cls(-amount, 0)
            case FeeCharged():
                pass


class Ledger(Fold):
    """Sums of its own, so that a lost event, or one that is folded twice, is in every row behind it."""

    total: int = 0
    entries: int = 0

    def apply(self, event: Deposited | Withdrawn | FeeCharged | Emptied) -> Self | None:
        """The row after the event; an account that was emptied has none, and begins anew."""
        match event:
            case Deposited(amount, _, _):
                return self.replace(total=self.total + amount, entries=self.entries + 1)
            case Withdrawn(amount, balance, _) if balance:
                return self.replace(total=self.total - amount, entries=self.entries + 1)
            case FeeCharged():
                return self.replace(total=self.total - 1, entries=self.entries + 1)
            case Withdrawn() | Emptied():
                return None


class TableStore(SimStore):
    """The model for one table, which all projectors share."""

    def __init__(self, stage: Stage, *, is_fold: bool) -> None:
        super().__init__(stage)
        self._is_fold = is_fold
        self._counted: dict[tuple[int, Lease], int] = {}
        self.told: list[tuple[int, int, frozenset[tuple[str, int]]]] = []
        """What was told to be there: partition and number, and ids with versions that were."""

    def table(self, partition: int) -> list[tuple[Any, ...]]:
        """What stands there of a partition."""
        return self.rows.setdefault((partition, "rows"), [])

    def newest(self, partition: int) -> dict[str, tuple[Any, ...]]:
        """By key, the row that `FINAL` gives."""
        return {row[ID]: row for row in sorted(self.table(partition), key=lambda row: row[NUMBER])}

    def count(self, partition: int, first: int) -> tuple[int, int, int]:
        """The greatest number, what is older than `first`, and all: rows, or keys of a fold."""
        self._effect("count")
        rows = self.table(partition)
        each = (lambda found: len({row[ID] for row in found})) if self._is_fold else len
        older = [row for row in rows if row[NUMBER] < first]
        return max((row[NUMBER] for row in rows), default=0), each(older), each(rows)

    def states(self, partition: int, keys: Sequence[str]) -> list[tuple[str, bool, str]]:
        """What the newest rows of these keys have."""
        self._effect("read back")
        newest = self.newest(partition)
        return [(key, newest[key][4], b64encode(newest[key][5]).decode()) for key in keys if key in newest]

    def write_counted(self, partition: int, lease: Lease, pending: Range, counted: int) -> None:
        """A pending range, with how much is in the table before it."""
        self._effect("write pending")
        self.pending.setdefault(partition, {})[lease] = pending
        self._counted[partition, lease] = counted
        self._confirm()

    def read_counted(self, partition: int) -> tuple[Range | None, int]:
        """Both, of the newest lease that wrote any."""
        found = self.read_pending(partition)
        return found, 0 if found is None else self._counted[partition, max(self.pending[partition])]

    def put(self, partition: int, lease: Lease, inserted: Range, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows as one block."""
        self._insert(lease, Insert(partition, "rows", inserted, rows))

    def finish(self, insert: Insert) -> None:
        """See SimStore. ClickHouse merges the rows of a fold when it likes: of each key, the newest stays."""
        super().finish(insert)
        if self._is_fold and self._stage.pick("merges", 2):
            self.table(insert.partition)[:] = self.newest(insert.partition).values()

    def tell(self, partition: int, number: int) -> None:
        """See SimStore; whether it is true is the judge's question."""
        self._effect("tell")
        there = frozenset((row[ID], row[VERSION]) for row in self.table(partition))
        self.told.append((partition, number, there))
        self._confirm()


class _Simulated(ProjectedTable):
    """What a table asks of ClickHouse, asked of the model: all else is the product's."""

    def __init__(self, sim: TableStore, projection: type[Any]) -> None:
        source = Source(SCHEMAS[-1], PARTITIONS, lambda number: SCHEMAS[number - 1].commit_json)
        nothing: Any = None
        super().__init__(nothing, projection, source, generation=1, folder=Path())
        self._sim = sim
        self._quarantine = _Empty(nothing, projection.__name__, 1, SCHEMAS[-1].aggregate)
        fields = [*_BLOCK, *self.block_fields, *self._contract.record["fields"]]
        self._parsed = fastavro.parse_schema(
            json.loads(json.dumps({"type": "record", "name": "Row", "fields": fields}))
        )

    def take_lease(self, partition: int, nonce: str) -> Lease:
        return self._sim.take_lease(partition, nonce)

    def stop_older_inserts(self, partition: int) -> None:
        self._sim.stop_older_inserts(partition)

    def tell(self, partition: int, number: int) -> None:
        self._sim.tell(partition, number)

    def read_pending(self, partition: int) -> Range | None:
        pending, counted = self._sim.read_counted(partition)
        first, last = (1, 0) if pending is None else (pending.first, pending.last)
        self.check(partition, first, last, counted)
        return pending

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        self._sim.write_counted(partition, lease, pending, self.counted(partition))

    def insert_rows(
        self, partition: int, lease: Lease, inserted: Range, rows: Sequence[bytes], *, part: str = "rows"
    ) -> None:
        self._sim.put(partition, lease, inserted, [tuple(self._read(row).values()) for row in rows])

    def _read(self, row: bytes) -> dict[str, Any]:
        found = fastavro.schemaless_reader(io.BytesIO(row), self._parsed, None)
        assert isinstance(found, dict)
        return found

    def _standing(self, partition: int, first: int) -> tuple[int, int, int]:
        return self._sim.count(partition, first)


class _Empty(Quarantine):
    """Nothing is ever held here."""

    def has_any(self, _: int) -> bool:
        return False


class SimRows(_Simulated, RowsTable):
    """The table of Booking."""


class SimFold(_Simulated, FoldTable):
    """The table of Ledger, with room for fewer states than there are."""

    def forget(self, partition: int) -> None:
        super().forget(partition)
        self._states[partition] = States(STATE_BYTES_MAX, is_whole=not self._last[partition])

    def _stored(self, partition: int, keys: Sequence[str], *_: str) -> Sequence[Sequence[Any]]:
        return self._sim.states(partition, keys) if keys else []


TABLES: Final[dict[type[Any], type[_Simulated]]] = {Booking: SimRows, Ledger: SimFold}
