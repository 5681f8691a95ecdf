"""A model of what the range loop needs of ClickHouse: leases, pending ranges, and inserts that take their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from magnetar.projections.range_loop import Lease, Range
from magnetar.schemas import LeaseLost, StoreUnavailable

from tests.simulation.stage import Stage

TABLES: Final = ("commits", "events")
"""One insert of the loop is one statement per table: a crash can come between the two."""


class Insert:
    """A statement that the server has begun: it comes to its end or is killed, whatever became of its client."""

    def __init__(self, partition: int, table: str, inserted: Range, rows: Sequence[tuple[int, bytes]]) -> None:
        self.partition = partition
        self.table = table
        self.token = (partition, table, inserted.first, inserted.last)
        self.rows = rows
        self.killed = False
        self.may_go_on = False
        """The lease has been checked: nothing but a kill stops it any more."""
        self.is_repeat = False
        """Its token was there when it started. Harsher than ClickHouse: an equal one under way is not noticed."""


class SimStore:
    """Tables in memory, which all projectors share."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.leases: dict[int, list[Lease]] = {}
        self.pending: dict[int, dict[Lease, Range]] = {}
        self.rows: dict[tuple[int, str], list[tuple[int, bytes]]] = {}
        """Per partition and table: what was inserted, and which schema it was taken to be of."""
        self.tokens: set[tuple[int, str, int, int]] = set()
        """Forgotten whenever a partition is opened: ClickHouse has room for so many, of all partitions together."""
        self.found: set[tuple[int, str, int, int]] = set()
        """The pending ranges that whoever opened a partition has found in a table."""
        self.told_too_much: list[tuple[int, int]] = []
        """Partitions and numbers of which it was written down that all up to there are there, and were not."""
        self.under_way: list[Insert] = []

    def _effect(self, name: str) -> None:
        self._stage.switch(name)
        if self._stage.strikes("store is unavailable"):
            raise StoreUnavailable(f"ClickHouse does not answer: {name}.")

    def _confirm(self) -> None:
        if self._stage.strikes("insert is not confirmed"):
            raise StoreUnavailable("ClickHouse did not answer in time.")

    def take_lease(self, partition: int, nonce: str) -> Lease:
        self._effect("read lease")
        leases = self.leases.setdefault(partition, [])
        lease = Lease(max((each.epoch for each in leases), default=0) + 1, nonce)
        self._effect("write lease")  # another one may write the same epoch meanwhile
        leases.append(lease)
        self._confirm()
        return lease

    def stop_older_inserts(self, partition: int) -> None:
        self._effect("stop older inserts")
        for insert in [each for each in self.under_way if each.partition == partition]:
            if self._stage.pick("is over before it is killed", 2):
                self.finish(insert)
            else:
                insert.killed = True
                self.under_way.remove(insert)
        self._confirm()

    def read_pending(self, partition: int) -> Range | None:
        self._effect("read pending")
        ranges = self.pending.get(partition)
        pending = ranges[max(ranges)] if ranges else None
        if pending is not None:
            self.look(partition, pending)
        self.tokens = {token for token in self.tokens if token[0] != partition}
        return pending

    def look(self, partition: int, pending: Range) -> None:
        """Find out which of the tables have the range: those of the mirror, which count their rows."""
        for table in TABLES:
            if len(self.rows.get((partition, table), ())) >= pending.last:
                self.found.add((partition, table, pending.first, pending.last))

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        self._effect("write pending")
        self.pending.setdefault(partition, {})[lease] = pending
        self._confirm()

    def tell(self, partition: int, number: int) -> None:
        self._effect("tell")
        if any(len(self.rows.get((partition, table), ())) < number for table in TABLES):
            self.told_too_much.append((partition, number))
        self._confirm()

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        lacking = [t for t in TABLES if (partition, t, inserted.first, inserted.last) not in self.found]
        for table in lacking:
            self._insert(lease, Insert(partition, table, inserted, [(schema, payload) for payload in payloads]))

    def _insert(self, lease: Lease, insert: Insert) -> None:
        self._effect(f"insert {insert.token[2]}-{insert.token[3]} into {insert.table}")
        self.under_way.append(insert)
        self._stage.switch("lease check")
        if not insert.killed and not self.is_newest(insert.partition, lease):
            self.under_way.remove(insert)
            raise LeaseLost("Another projector has the lease.")
        insert.may_go_on = True
        insert.is_repeat = insert.token in self.tokens
        self._stage.switch("insert under way")
        self._confirm()
        if insert in self.under_way:
            self.finish(insert)
        if insert.killed:
            raise StoreUnavailable("The insert was killed.")
        self._stage.switch("inserted")
        self._confirm()

    def is_newest(self, partition: int, lease: Lease) -> bool:
        """What the insert's own statement asks."""
        return lease == max(self.leases.get(partition, []), default=None)

    def finish(self, insert: Insert) -> None:
        """The rows are in the table, unless the token says that they are already."""
        self.under_way.remove(insert)
        if not insert.may_go_on:
            insert.killed = True
        elif not insert.is_repeat:
            self.tokens.add(insert.token)
            self.rows.setdefault((insert.partition, insert.table), []).extend(insert.rows)

    def land_something(self) -> bool:
        """Let an insert come to its end; returns whether there was one."""
        ready = [insert for insert in self.under_way if insert.may_go_on]
        if not ready:
            return False
        insert = ready[self._stage.pick("insert", len(ready))]
        self._stage.note(f"the insert {insert.token} is over")
        self.finish(insert)
        return True
