"""The tables of Rows: append-only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from magnetar.schemas.commit import Fact, meta_of

from .columns import literal, quoted
from .leased_table import ALL, Scope
from .projected_table import ProjectedTable
from .quarantine import Holding
from .quarantining_table import Made
from .range_loop import Lease, Range

_LIFETIME: Final = r"TTL _at \\+ toIntervalSecond\\((\\d+)\\)"
"""What of a table's engine says how long its rows are kept."""

_WITHOUT_WRITING: Final = "MODIFY SETTING materialize_ttl_recalculate_only = 1"
"""Of parts that are there, ClickHouse then notes when they are over, and writes only those anew of which some is."""

_SPARE: Final = 4
"""Rows that are over within a quarter of the time that they are kept are not counted: for so long one may look away and
find the others all there. Who does not look away counts anew twice in that time."""


class RowsTable(ProjectedTable):
    """One generation of the table of a Rows.

    Rows may have a time to live, `keep`. The view shows none that is over; ClickHouse deletes it by and by. So of such
    a table only those rows are counted that cannot be over when they are counted again.
    """

    unit: ClassVar[str] = "rows"
    counting: ClassVar[str] = "countIf({})"
    engine: ClassVar[str] = "MergeTree"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._storage = self._contract.storage
        self._keep_seconds = self._storage.keep_seconds
        self._scopes: dict[int, Scope] = {}
        self._look_again_at: dict[int, float] = {}

    # --- how it is stored ---------------------------------------------------------------------------------------------

    @property
    def sorting(self) -> str:
        """The order that its class says, and behind it the order in which rows come in."""
        return ", ".join(quoted(name) for name in self._storage.sorting)

    @property
    def settings(self) -> str:
        """The table's settings."""
        return f"{'allow_nullable_key = 1, ' if self._storage.is_nullable else ''}{super().settings}"

    @property
    def lifetime(self) -> str:
        """How long rows are kept, counted from the time of the command."""
        return f"TTL _at + toIntervalSecond({self._keep_seconds}) " if self._keep_seconds else ""

    @property
    def read_from(self) -> str:
        """The rows that are not over."""
        return f"{self.name} WHERE {alive(self._keep_seconds)}" if self._keep_seconds else self.name

    def prepare(self) -> None:
        """Create the table, or tell the one that is there how long rows are kept now: no row is written anew for it."""
        super().prepare()
        found = self._store.query(
            f"SELECT toUInt64OrZero(extract(engine_full, '{_LIFETIME}')) FROM system.tables "
            f"WHERE database = {literal(self._source.context)} "
            f"AND name = {literal(f'{self.view}__g{self.table.generation}')}"
        )
        if any(seconds != self._keep_seconds for (seconds,) in found):
            how = f"MODIFY {self.lifetime}".rstrip() if self._keep_seconds else "REMOVE TTL"
            self._store.command(f"ALTER TABLE {self.name} ({_WITHOUT_WRITING}), ({how})")

    # --- what comes in ------------------------------------------------------------------------------------------------

    def rows(self, partition: int, facts: Sequence[Fact], holding: Holding, /) -> Made:
        """Every row that `project` gives for each event."""
        project, since_us = self.projection.project, self.scope(partition).since * 1_000_000
        takes_meta, encode, framed, checked = self._contract.takes_meta, self._codec.encode, self.framed, self.checked
        made, uncounted = list[bytes](), 0
        for fact in facts:
            if (holding.known or holding.settled) and holding.takes(fact):
                continue
            before = len(made)
            try:
                found = project(fact.event, meta_of(fact)) if takes_meta else project(fact.event)
                made += [framed(fact, encode(checked(row))) for row in found or ()]
            except Exception as error:  # noqa: BLE001 - the projection's code is anybody's: its key is held
                self.hold(holding, fact, error)
            if since_us and fact.at_us < since_us:
                uncounted += len(made) - before
        return Made(made, len(made) - uncounted)

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Insert a range; where rows do not stay for ever, look from time to time whether they are all there."""
        super().insert(partition, lease, inserted, schema, payloads)
        if self._keep_seconds and time.monotonic() >= self._look_again_at[partition]:
            last, scope = inserted.last, self.scope(partition)
            self.check(partition, last + 1, last, self.counted(partition), scope)

    # --- how many there are -------------------------------------------------------------------------------------------

    def check(self, partition: int, first: int, last: int, counted: int, scope: Scope = ALL, /) -> None:
        """Count what was counted before; then, where rows do not stay for ever, what is to be counted from now on.

        If some of what was counted may be over by now, that there is less of it is no loss. More is too much as ever.
        """
        self._scopes[partition] = scope
        now = self._now() if self._keep_seconds or scope != ALL else 0
        if not self._holds(scope, now):
            counted = min(counted, self._standing(partition, first)[1])
        super().check(partition, first, last, counted)
        if self._keep_seconds or scope != ALL:
            self._scopes[partition] = self._scope_from(now)
            self._look_again_at[partition] = time.monotonic() + self._keep_seconds / (2 * _SPARE)
            _, self._counted[partition], self._has[partition] = self._standing(partition, first)

    def scope(self, partition: int, /) -> Scope:
        """Of which rows it is counted how many there are."""
        return self._scopes.get(partition, ALL)

    def counting_of(self, partition: int, /) -> str:
        """The expression that counts them."""
        since = self.scope(partition).since
        return f"countIf(({{}}) AND _at >= fromUnixTimestamp({since}))" if since else self.counting

    def is_whole(self, counted: int, below: int, all_of_it: int, *, has_range: bool) -> bool:
        """Rows stay as they are."""
        return below == counted and (has_range or all_of_it == below)

    def _holds(self, scope: Scope, now: int) -> bool:
        """Whether none of what was counted is over: neither by the time to live of then nor by the one of now."""
        return (not scope.until or now <= scope.until) and (
            not self._keep_seconds or scope.since >= now - self._keep_seconds
        )

    def _scope_from(self, now: int) -> Scope:
        keep = self._keep_seconds
        return Scope(max(1, now - keep + keep // _SPARE), now + keep // _SPARE) if keep else ALL

    def _now(self) -> int:
        """The time of the ClickHouse that deletes what is over."""
        ((now,),) = self._store.query("SELECT toUnixTimestamp(now())")
        return int(now)


def alive(keep_seconds: int) -> str:
    """The condition for rows that are not over."""
    return f"_at > now() - toIntervalSecond({keep_seconds})"
