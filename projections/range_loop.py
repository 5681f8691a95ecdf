"""The range loop: from the log into tables, each commit exactly once, whatever is killed or frozen on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog
from magnetar.schemas import MessageId, ReadRule, StoreUnavailable, Verdict
from magnetar.schemas.commit import counting_run, head_in_log
from magnetar.schemas.read_rule import START, Mark

FAILPOINTS: Final = ("after_lease", "after_stop", "after_pending", "between_tables", "after_insert")
"""Where tests may crash or freeze a projector. `between_tables` is the store's, within an insert."""

HANDED_OVER: Final = "handed_over"
"""One more, which a loop passes once at most: behind the last range from the mirror."""

RANGE_COMMITS_MAX: Final = 40_000
"""Commits in one range at most: one block, one insert. With 25,000 the mirror took in 350,000 events a second, with
50,000 417,000; a projector of a million keys on a server held 260 and 380 MB then."""


GAP_SECONDS: Final = 10.0
"""So long the log may take to give a commit that it has to have."""


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
    """A range that has been read, and not been inserted. One of the mirror is known by its numbers: it has no bytes."""

    range: Range
    schema: int = 0
    payloads: Sequence[bytes] = ()

    @property
    def commits(self) -> int:
        """How many."""
        return self.range.last - self.range.first + 1


class Mirrored(Protocol):
    """Ranges of one partition that are taken from the mirror's tables in place of the log."""

    @property
    def last(self) -> int:
        """The number of the last commit that the mirror is known to have, with all before it."""
        ...

    @property
    def mark(self) -> Mark:
        """A place in the log at or before the commit behind that one."""
        ...

    @property
    def range_commits_max(self) -> int:
        """Commits in one range at most."""
        ...

    def insert(self, lease: Lease, inserted: Range, /) -> None:
        """What `RangeStore.insert` does, with what the mirror has of the range."""
        ...


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

    Ranges may come from the mirror at first (docs/adr/0014). Such a range has no place in the log: its `after` is None.
    Behind the last of them an empty range is written down, with the place where the log goes on.
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
        open_mirror: Callable[[], Mirrored | None] = lambda: None,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        """1. Takes the lease. 2. Stops older inserts. 3. Only then reads how far the table is, and 4. replays the last
        range. With `until`, no commit with a higher number is inserted. `open_mirror` is asked where the table has
        nothing from the log yet. Raises LeaseLost if another owner has come in between."""
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
        self._open_feed = open_feed
        self._pending = pending = store.read_pending(partition)
        self._is_told = True
        """Whether it is written down of all commits in the table that they are there."""
        self._feed: Feed | None = None
        self._mirrored = self._mirror_for(pending, open_mirror)
        if self._mirrored is None:
            self._read_from(START if pending is None else Mark(pending.after, pending.owner, pending.first))
        else:
            self._after: MessageId | None = None
            self._rule = ReadRule(None, 1 if pending is None else pending.first)
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
        if (mirrored := self._mirrored) is not None:
            last = min(mirrored.last, self.number + mirrored.range_commits_max)
            return Planned(Range(first, last, None, None))
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
        if self._mirrored is None:
            self._insert(*planned)
        else:
            self._insert_mirrored(self._mirrored, planned.range)
        return planned.commits

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
        if self._feed is not None:
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
        if self._mirrored is not None:
            self._insert_mirrored(self._mirrored, pending)
            return
        if not wanted:  # it says no more than where the log goes on behind what came from the mirror
            return
        schema, payloads = 0, list[bytes]()
        while len(payloads) < wanted:
            before = self._after
            schema, more = self._collect(wanted - len(payloads), timeout_seconds=GAP_SECONDS)
            if self._after == before:
                raise StoreUnavailable(
                    f"The tables have commits {pending.first} to {pending.last} of partition {self._partition}, or "
                    "were to have them, and the log does not give them any more.",
                    cure="Was the log put back to an older copy than the tables? Restore both from one copy.",
                )
            payloads += more
        self._insert(pending, schema, payloads)

    # --- from the mirror ----------------------------------------------------------------------------------------------

    def _mirror_for(self, pending: Range | None, open_mirror: Callable[[], Mirrored | None]) -> Mirrored | None:
        """The mirror, while it is the source: until a place in the log is written down."""
        if pending is not None and pending.after is not None:
            return None
        mirrored = open_mirror()
        last = 0 if pending is None else pending.last
        if mirrored is not None and mirrored.last >= max(last, 1):
            return mirrored
        if pending is not None and (mirrored is not None or pending.first > 1):
            raise StoreUnavailable(
                f"Commits {pending.first} to {pending.last} of partition {self._partition} were being taken from the "
                f"mirror, and it is known to have {0 if mirrored is None else mirrored.last} of them and of those "
                "before.",
                cure="It is tried again. If the mirror does not get them any more, give the rebuild up with "
                "`--cancel`, and repeat it without `--from mirror`.",
                partition=self._partition,
            )
        return None

    def _insert_mirrored(self, mirrored: Mirrored, inserted: Range) -> None:
        self._failpoint("after_pending")
        mirrored.insert(self._lease, inserted)
        self._failpoint("after_insert")
        self._is_told = False
        if inserted.last == mirrored.last:
            self._hand_over(mirrored)
        else:
            self._rule.expected = inserted.last + 1

    def _hand_over(self, mirrored: Mirrored) -> None:
        """Go on in the log, and write down where: whoever comes next needs no mirror any more."""
        self._read_from(mirrored.mark, mirrored.last + 1)
        self._mirrored = None
        self._pending = Range(mirrored.last + 1, mirrored.last, self._after, self._rule.owner)
        self._store.write_pending(self._partition, self._lease, self._pending)
        self._failpoint(HANDED_OVER)

    def _read_from(self, mark: Mark, first: int | None = None) -> None:
        """Read the log from a place on; with `first`, drop what is before that commit. Raises StoreUnavailable if the
        log does not have what is dropped."""
        self._feed = feed = self._open_feed(mark.after)
        rule, after = ReadRule(mark.owner, mark.expected), mark.after
        if first is not None:
            after = pass_over(feed, rule, first, after=after, commits_max=self._range_commits_max)
            if rule.expected < first:
                raise StoreUnavailable(
                    f"The mirror has commit {first - 1} of partition {self._partition}, and the log gives none behind "
                    f"{rule.expected - 1}.",
                    cure="Was the log put back to an older copy than the tables? Restore both from one copy.",
                    partition=self._partition,
                )
        self._rule, self._after = rule, after

    # --- from the log -------------------------------------------------------------------------------------------------

    def _collect(self, commits_max: int, timeout_seconds: float) -> tuple[int, list[bytes]]:
        """The next commits that count and were written with one schema, and that schema's number."""
        if self._feed is None:
            return 0, []
        run = self._feed.read_run(messages_max=commits_max, timeout_seconds=timeout_seconds)
        if run is None:
            return 0, []
        self._after = run.last
        return run.schema, counting(self._rule, run.payloads, run.last, orphan=self._orphan)

    def _orphan(self, number: int) -> None:
        self._logger.warning("orphan", number=number, expected=self._rule.expected)


def pass_over(
    feed: Feed, rule: ReadRule, first: int, *, after: MessageId | None, commits_max: int = RANGE_COMMITS_MAX
) -> MessageId | None:
    """Read on until commit `first` comes next, or the log gives nothing more: `rule.expected` says which. Returns the
    place of the last message that was read, or `after`."""
    while rule.expected < first:
        run = feed.read_run(messages_max=min(first - rule.expected, commits_max), timeout_seconds=GAP_SECONDS)
        if run is None:
            break
        counting(rule, run.payloads, run.last)
        after = run.last
    return after


def counting(
    rule: ReadRule, payloads: list[bytes], last: MessageId, *, orphan: Callable[[int], None] = lambda _: None
) -> list[bytes]:
    """Those of the payloads that count; `orphan` is told the number of one that lacks a predecessor.

    Raises PartitionRefused for one that is no commit at all.
    """
    run = counting_run(rule, payloads, 0)
    if run == len(payloads):
        return payloads
    found, at = payloads[:run], run
    while at < len(payloads):
        number, owner = head_in_log(payloads[at], last)
        verdict = rule.judge(number, owner)
        if verdict is Verdict.COUNTS:
            found.append(payloads[at])
        elif verdict is Verdict.ORPHAN:
            orphan(number)
        at += 1
        run = counting_run(rule, payloads, at)
        found += payloads[at : at + run]
        at += run
    return found
