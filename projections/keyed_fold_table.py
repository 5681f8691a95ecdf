"""The tables of Folds whose rows are of a window of time, or of fields of their events, not of an aggregate alone."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from magnetar.schemas.commit import Fact, meta_of
from magnetar.schemas.derivation import Json
from magnetar.schemas.framing import write_bytes, write_long

from .columns import column_type, comment, literal, quoted
from .contracts import contract_of
from .fold_table import FoldTable, packed
from .held import VERSION_BITS, HeldAs, order_of
from .quarantine import Holding, Span
from .quarantining_table import Made
from .sql_views import said_of
from .windows import Keyed, Place

_WINDOW: Final = "DateTime64(3, 'UTC')"
_LATE_BYTES: Final = 8


class _Folded(NamedTuple):
    """What is kept of a key: its row, None for one that is deleted, and how many of its events came late."""

    row: Any
    late: int


class KeyedFoldTable(FoldTable):
    """One generation of such a table.

    `_key` is the whole key as text, `_seen` the newest time of an event that the partition had seen: the watermark is
    read from the rows when a partition is opened, so that an event is late whoever folds it, in whatever ranges.
    """

    counting: ClassVar[str] = "uniqExactIf(_key, {})"
    order: ClassVar[str] = "_key, _partition"
    """A row by a field stands in several partitions, and FINAL would keep one of them."""
    hidden: ClassVar[dict[str, str]] = {
        **FoldTable.hidden,
        "_key": "String",
        "_window": f"{_WINDOW} COMMENT 'where the window begins'",
        "_late": "UInt64 COMMENT 'events that came when the window was over'",
        "_seen": "Int64",
    }
    block_fields: ClassVar[list[Json]] = [
        *FoldTable.block_fields,
        {"name": "_key", "type": "string"},
        {"name": "_window", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "_late", "type": "long"},
        {"name": "_seen", "type": "long"},
    ]
    key_column: ClassVar[str] = "_key"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._keyed: Keyed = self._contract.keyed or Keyed(None, (), {})
        self._newest: dict[int, int] = {}
        self._newest_after: dict[int, int] = {}

    def held_as(self, fact: Fact) -> HeldAs:
        """By what it is by, in any window: the events of several aggregates, in the order of their partition."""
        if not self._keyed.by:
            return super().held_as(fact)
        return HeldAs(self._keyed.name(fact), order_of(fact.number, fact.version))

    def versions(self, partition: int, held: Mapping[str, Span]) -> dict[str, int]:
        """See QuarantiningTable: the last event of a row says how far it is."""
        if not self._keyed.by or not held:
            return super().versions(partition, held)
        name = "_key" if self._keyed.window is None else "substring(_key, position(_key, ' ') + 1)"
        order = f"max(bitOr(bitShiftLeft(toInt64(_number), {VERSION_BITS}), _version))"
        names = ", ".join(literal(key) for key in held)
        rows = self._store.query(
            f"SELECT {name} AS name, {order} FROM {self.name} "
            f"WHERE {self.of(partition)} AND name IN ({names}) GROUP BY name"
        )
        return {key: last for key, last in rows if last >= held[key].first}

    def show(self, _: Any = None, /) -> None:
        """Let the view show this generation, with the rows of several partitions merged where there are such."""
        if self._keyed.by:
            self._store.command(self._merging_view())
        else:
            super().show()

    @property
    def shown(self) -> dict[str, str]:
        """The columns of the view besides the fields."""
        return {**super().shown, **{name: self.hidden[name] for name in ("_window", "_late") if self._keyed.window}}

    def _merging_view(self) -> str:
        keyed, items = self._keyed, list[str]()
        columns = list[str]()
        for field in self._contract.record["fields"]:
            name, kind = quoted(field["name"]), column_type(field["type"])
            how = keyed.merges.get(field["name"])
            items.append(f"t.{name}" if how is None else f"CAST({how}(t.{name}), {literal(kind)}) AS {name}")
            columns.append(f"{name} {kind} COMMENT {literal(comment(field))}")
        group = [f"t.{quoted(name)}" for name in keyed.by]
        if keyed.window is not None:
            items += ["t._window", "sum(t._late) AS _late"]
            columns += [f"{name} {self.hidden[name]}" for name in ("_window", "_late")]
            group.append("t._window")
        items.append("max(t._at) AS _at")
        columns.append("_at DateTime64(6, 'UTC') COMMENT 'the time of the last command'")
        return (
            f"CREATE OR REPLACE VIEW {self.database}.{quoted(self.view)} ({', '.join(columns)}) AS "
            f"SELECT {', '.join(items)} FROM {self.name} AS t FINAL GROUP BY {', '.join(group)} "
            f"COMMENT {literal(said_of(self.projection))}"
        )

    def forget(self, partition: int) -> None:
        """Begin with what is in the table, and with the newest time that was seen."""
        super().forget(partition)
        ((newest,),) = self._store.query(f"SELECT max(_seen) FROM {self.name} WHERE {self.of(partition)}")
        self._newest[partition] = newest

    def rows(self, partition: int, facts: Sequence[Fact], holding: Holding, /) -> Made:
        """The row of each key after its last event."""
        changed, last = dict[Place, _Folded](), dict[Place, tuple[Fact, int]]()
        places = {(fact.aggregate_id, fact.version): self._keyed.places(fact) for fact in facts}
        before = self._before(partition, (place.key for each in places.values() for place in each))
        newest = self._newest[partition]
        for fact in facts:
            if (holding.known or holding.settled) and holding.takes(fact):
                continue
            folded = dict[Place, _Folded]()
            for place in places[fact.aggregate_id, fact.version]:
                state = changed.get(place) or self._unpacked(before.get(place.key))
                is_late = self._keyed.is_late(place, newest)
                try:
                    folded[place] = _Folded(self._after(fact, state.row), state.late + is_late)
                except Exception as error:  # noqa: BLE001 - the projection's code is anybody's: its key is held
                    self.hold(holding, fact, error)
                    break
            else:
                newest = max(newest, self._keyed.time_us(fact))
                changed.update(folded)
                last.update((place, (fact, newest)) for place in folded)
        kept, rows = dict[str, bytes](), list[bytes]()
        for place, (row, late) in changed.items():
            body = self._codec.encode(self._seed if row is None else row)
            kept[place.key] = _packed(body, late, is_deleted=row is None)
            fact, seen = last[place]
            key = write_bytes(place.key.encode()) + write_long(place.start_us // 1000)
            key += write_long(late) + write_long(seen)
            rows.append(self._row(fact, body, key, is_deleted=row is None))
        self._changed[partition], self._newest_after[partition] = kept, newest
        return Made(rows, sum(1 for key in kept if key not in before))

    def keep(self, partition: int) -> None:
        """Keep what was folded: it is in the table."""
        super().keep(partition)
        self._newest[partition] = self._newest_after.pop(partition)

    def _after(self, fact: Fact, row: Any) -> Any:
        if row is None:
            row = self._keyed.seeded(self._seed, fact)
        after = row.apply(fact.event, meta_of(fact)) if self._contract.takes_meta else row.apply(fact.event)
        if after is not None:
            self._codec.encode(self.checked(after))  # what cannot be stored is this event's fault, and no later one's
        return after

    def _unpacked(self, state: bytes | None) -> _Folded:
        if state is None:
            return _Folded(None, 0)
        return _Folded(super()._unpacked(state[_LATE_BYTES:]), int.from_bytes(state[:_LATE_BYTES]))

    def _read_back(self, partition: int, keys: Sequence[str]) -> dict[str, bytes]:
        return {
            key: _packed(b64decode(state), late, is_deleted=is_deleted)
            for key, is_deleted, state, late in self._stored(partition, keys, "_late")
        }


def _packed(body: bytes, late: int, *, is_deleted: bool) -> bytes:
    """A row's bytes, and how many of its events came late, as a state that is kept."""
    return late.to_bytes(_LATE_BYTES) + packed(body, is_deleted=is_deleted)


def fold_table_of(projection: type[Any]) -> type[FoldTable]:
    """The kind of table that a Fold wants."""
    return FoldTable if contract_of(projection).keyed is None else KeyedFoldTable
