"""The range loop: from the log into tables, each commit exactly once, whatever is killed or frozen on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from magnetar.schemas import MessageId, ReadRule, StoreUnavailable, Verdict
from magnetar.schemas.commit import counting_run, head_in_log

FAILPOINTS: Final = ("after_lease", "after_stop", "after_pending", "between_tables", "after_insert")
"""Where tests may crash or freeze a projector. `between_tables` is the store's, within an insert."""

RANGE_COMMITS_MAX: Final = 40_000
"""Commits in one range at most: one block, one insert. With 25,000 the mirror took in 350,000 events a second, with
50,000 417,000; a projector of a million keys on a server held 260 and 380 MB then."""


class LogRun(Protocol):
    """What the loop needs of messages on an event topic: their bytes, one schema for all, and where they end."""

    @property
    def payloads(self) -> list[bytes]:
        """Their bytes, one or more."""
        ...

    @property
    def schema(self) -> int:
        """The number of the schema that all were written with."""
        ...

    @property
    def last(self) -> MessageId:
        """The place of the last."""
        ...


class Feed(Protocol):
    """Reads one partition of an event topic from a place on."""

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> LogRun | None:
        """The next messages, as far as they were written with one schema; None when none came in time."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Lease(NamedTuple):
    """One ownership of a table's partition. The greatest is the owner's: by epoch and, where two owners took the same
    epoch at once, by nonce."""

    epoch: int
    nonce: str


class Range(NamedTuple):
    """A run of commits that is inserted as a whole, and where to read it again: behind `after`, with the read rule's
    owner as it was there. All commits below `first` are in the table."""

    first: int
    last: int
    after: MessageId | None
    owner: bytes | None


class Planned(NamedTuple):
    """A range that has been read, and not been inserted."""

    range: Range
    schema: int
    payloads: Sequence[bytes]


class RangeStore(Protocol):
    """Where the rows go. Each method is one effect; a crash or a freeze can come between any two."""

    def take_lease(self, partition: int, nonce: str) -> Lease:
        """Write down a new owner, with an epoch above all before."""
        ...

    def stop_older_inserts(self, partition: int) -> None:
        """End or outwait the inserts of older owners: when this returns, none of them is under way."""
        ...

    def read_pending(self, partition: int) -> Range | None:
        """The last range that was begun."""
        ...

    def write_pending(self, partition: int, lease: Lease, pending: Range) -> None:
        """Write down the range that is going to be inserted."""
        ...

    def tell(self, partition: int, number: int) -> None:
        """Write down, for whoever reads, that all commits up to this one are in the table. That stays true."""
        ...

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Insert a range, all or nothing, unless it is in the table already.

        Raises LeaseLost, and inserts nothing, if the lease is not the newest when the insert starts.
        """
        ...


class RangeLoop:
    """Brings one partition of an event topic into a store.

    Why each commit is in the table exactly once: a range is written down before it is inserted, and replayed with the
    same cuts by whoever comes next, under a token that the store inserts once. An older owner's insert either started
    before the lease was taken, and is then over before the pending range is read, or finds the lease gone.
    """

    def __init__(
        self,
        store: RangeStore,
        partition: int,
        open_feed: Callable[[MessageId | None], Feed],
        *,
        nonce: str,
        range_commits_max: int = RANGE_COMMITS_MAX,
        until: int | None = None,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        """1. Takes the lease. 2. Stops older inserts. 3. Only then reads how far the table is, and 4. replays the last
        range. With `until`, no commit with a higher number is inserted. Raises LeaseLost if another owner has come in
        between."""
        self._store = store
        self._partition = partition
        self._range_commits_max = range_commits_max
        self._until = until
        self._failpoint = failpoint or (lambda _: None)
        self._logger = structlog.get_logger("magnetar.projector").bind(partition=partition)
        self._lease = store.take_lease(partition, nonce)
        self._failpoint("after_lease")
        store.stop_older_inserts(partition)
        self._failpoint("after_stop")
        self._pending = pending = store.read_pending(partition)
        after = None if pending is None else pending.after
        self._rule = ReadRule() if pending is None else ReadRule(pending.owner, pending.first)
        self._after: MessageId | None = after
        self._is_told = True
        """Whether it is written down of all commits in the table that they are there."""
        self._feed = open_feed(after)
        if pending is not None:
            self._replay(pending)

    @property
    def number(self) -> int:
        """The number of the last commit in the table, 0 if there is none."""
        return self._rule.expected - 1

    @property
    def place(self) -> MessageId | None:
        """The last message that was read: it may be one that does not count."""
        return self._after

    def step(self, *, timeout_seconds: float = 0.0) -> int:
        """Insert the next range; returns how many commits it has, 0 if nothing came in time. Raises LeaseLost."""
        planned = self.plan(timeout_seconds=timeout_seconds)
        if planned is None:
            return 0
        self._store.write_pending(self._partition, self._lease, planned.range)
        return self.insert(planned)

    def plan(self, *, timeout_seconds: float = 0.0) -> Planned | None:
        """Read the next range; None if nothing came in time. It has to be written down, and then inserted.

        That a range is in the table is told by the next one's pending row or, when nothing comes, by a row of its own:
        who asks for what he has written (projections/freshness.py) need not wait for somebody else to write.
        """
        after, owner, first = self._after, self._rule.owner, self._rule.expected
        room = self._range_commits_max
        if self._until is not None and (room := min(room, self._until - self.number)) <= 0:
            return None
        schema, payloads = self._collect(room, timeout_seconds)
        self._check_begins(is_at_end=self._after == after)
        if payloads:
            return Planned(Range(first, first + len(payloads) - 1, after, owner), schema, payloads)
        if not self._is_told:
            self._store.tell(self._partition, self.number)
            self._is_told = True
        return None

    def _check_begins(self, *, is_at_end: bool) -> None:
        """A table that is filled from the start of a log that has none would stay empty, and nobody would know."""
        begins_at = self._rule.begins_at
        if begins_at is not None and (is_at_end or self._rule.is_cut):
            raise StoreUnavailable(
                f"The log of partition {self._partition} begins with commit {begins_at:,}: those before it are gone, "
                "so that no table can be filled from it.",
                cure="Tables that are filled go on, and `magnetar rebuild --cancel` gives up new ones. Was the log "
                "trimmed? `magnetar doctor` looks at its retention; a backup of the log has what is gone.",
            )

    def insert(self, planned: Planned) -> int:
        """Insert a range that is written down under this lease; returns how many commits it has. Raises LeaseLost."""
        self._pending = planned.range
        self._insert(*planned)
        return len(planned.payloads)

    @property
    def lease(self) -> Lease:
        """What the range is to be written down under."""
        return self._lease

    def between_ranges(self, work: Callable[[Lease, Range], None]) -> None:
        """Let the store do something else under this lease, and tell it the range that is written down."""
        if self._pending is not None:
            work(self._lease, self._pending)

    def close(self) -> None:
        """Let go of the log. The lease is simply overtaken by the next owner."""
        self._feed.close()

    def _insert(self, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        self._failpoint("after_pending")
        self._store.insert(self._partition, self._lease, inserted, schema, payloads)
        self._failpoint("after_insert")
        self._is_told = False

    def _replay(self, pending: Range) -> None:
        """Insert the pending range again, whole and with the same cuts.

        It is written down under the own lease first. Otherwise a range that an older owner wrote down after this one
        had read would be the newest for whoever comes next, with cuts that were never inserted (docs/adr/0001).
        """
        self._store.write_pending(self._partition, self._lease, pending)
        wanted = pending.last - pending.first + 1
        schema, payloads = 0, list[bytes]()
        while len(payloads) < wanted:
            before = self._after
            schema, more = self._collect(wanted - len(payloads), timeout_seconds=10.0)
            if self._after == before:
                raise StoreUnavailable(
                    f"The tables have commits {pending.first} to {pending.last} of partition {self._partition}, or "
                    "were to have them, and the log does not give them any more.",
                    cure="Was the log put back to an older copy than the tables? Restore both from one copy.",
                )
            payloads += more
        self._insert(pending, schema, payloads)

    def _collect(self, commits_max: int, timeout_seconds: float) -> tuple[int, list[bytes]]:
        """The next commits that count and were written with one schema, and that schema's number."""
        run = self._feed.read_run(messages_max=commits_max, timeout_seconds=timeout_seconds)
        if run is None:
            return 0, []
        self._after = run.last
        return run.schema, self._counting(run.payloads, run.last)

    def _counting(self, payloads: list[bytes], last: MessageId) -> list[bytes]:
        """Those of the payloads that count. Raises PartitionRefused for one that is no commit at all."""
        run = counting_run(self._rule, payloads, 0)
        if run == len(payloads):
            return payloads
        counting, at = payloads[:run], run
        while at < len(payloads):
            number, owner = head_in_log(payloads[at], last)
            verdict = self._rule.judge(number, owner)
            if verdict is Verdict.COUNTS:
                counting.append(payloads[at])
            elif verdict is Verdict.ORPHAN:
                self._logger.warning("orphan", number=number, expected=self._rule.expected)
            at += 1
            run = counting_run(self._rule, payloads, at)
            counting += payloads[at : at + run]
            at += run
        return counting
