"""A model of what the range loop needs of ClickHouse: leases, pending ranges, tokens, inserts that take their time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from magnetar.projections.range_loop import Lease, Range
from magnetar.schemas import LeaseLost, ReadRule, StoreUnavailable, Verdict
from magnetar.schemas.commit import read_head


class _Insert:
    """An insert that the server has begun: its client may be dead before it is done."""

    def __init__(self, partition: int, token: str, rows: list[bytes]) -> None:
        self.partition = partition
        self.token = token
        self.rows = rows


class StoreModel:
    """Tables in memory. `switch` is called before each effect, and between an insert's lease check and its end."""

    def __init__(self, switch: Callable[[str], None]) -> None:
        self._switch = switch
        self.leases: dict[int, list[Lease]] = {}
        self.pending: dict[int, dict[Lease, Range]] = {}
        self.rows: dict[int, list[bytes]] = {}
        self.tokens: set[tuple[int, str]] = set()
        self._under_way: list[_Insert] = []

    def take_lease(self, partition: int, nonce: str) -> Lease:
        self._switch("take lease")
        leases = self.leases.setdefault(partition, [])
        lease = Lease(max((each.epoch for each in leases), default=0) + 1, nonce)
        self._switch("write lease")  # another one may write the same epoch meanwhile
        leases.append(lease)
        return lease

    def stop_older_inserts(self, partition: int) -> None:
        self._switch("stop older inserts")
        self._under_way = [each for each in self._under_way if each.partition != partition]

    def read_pending(self, partition: int) -> Range | None:
        self._switch("read pending")
        ranges = self.pending.get(partition)
        return ranges[max(ranges)] if ranges else None

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        self._switch("write pending")
        self.pending.setdefault(partition, {})[lease] = pending

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        self._switch("insert")
        if not self.is_newest(partition, lease):
            raise LeaseLost("The lease is lost.")
        insert = _Insert(partition, f"{inserted.first}-{inserted.last}", list(payloads))
        self._under_way.append(insert)
        self._switch("insert under way")
        if insert in self._under_way:
            self._finish(insert)
        elif (partition, insert.token) not in self.tokens:
            raise StoreUnavailable("The insert was killed.")
        self._switch("inserted")

    def is_newest(self, partition: int, lease: Lease) -> bool:
        leases = self.leases.get(partition, [])
        return lease == max(leases, default=None)

    def _finish(self, insert: _Insert) -> None:
        self._under_way.remove(insert)
        if (insert.partition, insert.token) not in self.tokens:
            self.tokens.add((insert.partition, insert.token))
            self.rows.setdefault(insert.partition, []).extend(insert.rows)

    def land(self, rng: random.Random) -> bool:
        """Let an insert that the server has begun come to its end, whatever became of its client."""
        if not self._under_way:
            return False
        self._finish(rng.choice(self._under_way))
        return True

    def has_caught_up(self, partitions: Sequence[Any]) -> bool:
        """Whether each table partition has at least as many rows as commits count."""
        return all(len(self.rows.get(i, [])) >= len(counting(p.messages)) for i, p in enumerate(partitions))


def counting(messages: Sequence[Any]) -> list[bytes]:
    """The payloads of a partition's commits that count."""
    rule = ReadRule()
    found = []
    for message in messages:
        number, owner, _ = read_head(message.payload)
        if rule.judge(number, owner) is Verdict.COUNTS:
            found.append(message.payload)
    return found
