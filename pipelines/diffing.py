"""What a change of the code does to history: commands decided otherwise, events that do not fold, rows that differ."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
from magnetar.projections import Sql
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.freshness import MIRROR
from magnetar.projections.row_difference import Side, compare
from magnetar.projections.snapshot import Until, counted, filled_query, identity_of
from magnetar.projections.store import Store

from .clock import Clock
from .live_tables import LiveTables, Snapshot
from .log import Log
from .pipeline import Pipeline
from .replaying import EXAMPLES, Replayed, replay
from .scratch import Filled, Refused, Scratch, scratch_folder
from .targets import Target, projection_of, target_of, targets_of

STEADY_COMMITS: Final = 500
"""So many commits of each partition are folded twice: less than a second for most tables."""


class TableDifference(msgspec.Struct):
    """How the rows of a projection's table differ from those that the code as it is now makes of the same events."""

    projection: str
    has_changed: bool
    """Whether `magnetar rebuild --changed` takes it."""
    is_fork: bool = False
    """Whether it is of two scratch tables, none of which is shown."""
    is_new: bool = False
    """Whether there is no table of it yet."""
    columns_added: list[str] = []
    columns_removed: list[str] = []
    before: int = 0
    after: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    not_compared: int = 0
    """How many have changed in the live table meanwhile, or go on behind the sample."""
    is_exact: bool = True
    """Whether both sides are as of the same commit: of an Sql that is written to all the time, they need not be."""
    examples: list[dict[str, Any]] = []
    refused: list[Refused] = []
    unsteady: int = 0
    """How many rows differ between two tables that this code fills from the same events, the first of each partition.
    Looked at only if rows differ."""
    left_out: str = ""
    """Why it was not compared, if it was not."""

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not (
            self.is_new
            or self.columns_added
            or self.columns_removed
            or self.added
            or self.removed
            or self.changed
            or self.refused
            or (self.left_out and self.has_changed)
        )


class Difference(msgspec.Struct):
    """All of it."""

    pipeline: str
    aggregates: list[Replayed]
    tables: list[TableDifference]
    sample: int | None = None
    """How many commits of each aggregate were replayed at most; None for all."""

    @property
    def is_same(self) -> bool:
        """Whether the code as it is now makes the same of what is recorded."""
        return all(each.is_same for each in self.aggregates) and all(each.is_same for each in self.tables)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be compared."""

    names: Sequence[str] = ()
    """Aggregates, whose commands are decided once more, and projections; none of them is all."""
    only_changed: bool = False
    """Of the projections, those whose declaration has changed."""
    commands: bool = True
    """Whether commands are decided once more."""
    tables: bool = True
    """Whether rows are compared."""
    sample: int | None = None
    """So many commits of each aggregate, see Sample; None for all."""
    examples: int = EXAMPLES


def diff(
    pipeline: Pipeline, log: Log, data: Path, clock: Clock, wanted: Wanted, server: Endpoint | None = None
) -> Difference:
    """Replay what is recorded under the code as it is now. Nothing is written to the log or to the tables.

    1. Decides the commands of each aggregate once more. 2. Copies the rows that are shown. 3. Fills tables of the same
    projections from the log, up to the same commits, in an engine in a temporary folder; this process opens it. 4. Has
    that compare the rows.
    """
    tables = [target for target in _targets(pipeline, wanted) if target.projection != MIRROR and wanted.tables]
    replayed = [
        replay(pipeline, log, name, sample=wanted.sample, examples=wanted.examples)
        for name in aggregates_of(pipeline, wanted)
        if wanted.commands
    ]
    found = _tables(pipeline, log, data, clock, wanted, tables, server) if tables else []
    return Difference(pipeline.name, replayed, found, wanted.sample)


def _targets(pipeline: Pipeline, wanted: Wanted) -> list[Target]:
    return [target_of(pipeline, name) for name in wanted.names] or list(targets_of(pipeline).values())


def aggregates_of(pipeline: Pipeline, wanted: Wanted) -> list[str]:
    """Those whose commands are meant. Raises SettingsError for a name that means nothing here."""
    return [target.name for target in _targets(pipeline, wanted) if target.projection == MIRROR]


def _tables(
    pipeline: Pipeline,
    log: Log,
    data: Path,
    clock: Clock,
    wanted: Wanted,
    targets: Sequence[Target],
    server: Endpoint | None,
) -> list[TableDifference]:
    with scratch_folder() as folder:
        # All of them before the scratch engine is opened: where nobody runs, this process opens the data folder's.
        with closing(LiveTables(pipeline, data, sample=wanted.sample, server=server)) as live:
            taken = [
                (target, live.snapshot(target, folder / f"{target.name}.native"))
                for target in targets
                if wanted.sample is None or not issubclass(projection_of(pipeline, target.projection), Sql)
            ]
        scratch = Scratch(pipeline, log, clock, folder)
        try:
            found = [
                _difference(scratch, target, projection_of(pipeline, target.projection), snapshot, wanted.examples)
                for target, snapshot in taken
                if snapshot.has_changed or not wanted.only_changed
            ]
        finally:
            scratch.close()
    sampled = [target for target in targets if target not in [each for each, _ in taken]]
    return found + [TableDifference(target.name, False, left_out=_SUMS) for target in sampled]


_TOLD_APART = "its rows are told apart by other columns than those that are shown"
_SUMS = "an incremental Sql sums the whole log up: it is compared without --sample only"


def _difference(
    scratch: Scratch, target: Target, projection: type[Any], snapshot: Snapshot, examples: int
) -> TableDifference:
    filled = scratch.fill(projection, target.aggregates, snapshot.until)
    found = TableDifference(target.name, snapshot.has_changed, is_exact=snapshot.is_exact)
    found.refused = scratch.refused(projection, examples=examples)
    after = side_of(scratch.store, projection, filled)
    if snapshot.side is None:
        ((found.after,),) = scratch.store.query(counted(after.query))
        if snapshot.not_compared is None:
            found.is_new, found.added = True, found.after
        else:
            found.left_out, found.before = _TOLD_APART, snapshot.not_compared
        return found
    with_rows(found, scratch.store, projection, snapshot.side, after, examples=examples)
    if found.added or found.removed or found.changed:
        found.unsteady = _unsteady(scratch, projection, target.aggregates, snapshot.until)
    return found


def _unsteady(scratch: Scratch, projection: type[Any], aggregates: tuple[str, ...], until: Until) -> int:
    """Fill it twice more by the same code, and compare the two: code that looks at a clock differs from itself."""
    few = {part: min(number, STEADY_COMMITS) for part, number in until.items()}
    one, other = (
        side_of(scratch.store, projection, scratch.fill(projection, aggregates, few, generation=generation))
        for generation in (2, 3)
    )
    again = TableDifference("", has_changed=False)
    with_rows(again, scratch.store, projection, one, other, examples=0)
    return again.added + again.removed + again.changed


def with_rows(
    found: TableDifference, store: Store, projection: type[Any], before: Side, after: Side, *, examples: int
) -> TableDifference:
    """What is found, with what the rows of the two sides differ in."""
    found.columns_added = [name for name in after.columns if name not in before.columns]
    found.columns_removed = [name for name in before.columns if name not in after.columns]
    is_sum = issubclass(projection, Sql)
    rows = compare(store, before, after, identity_of(projection), are_floats_summed=is_sum, examples=examples)
    found.before, found.after = rows.before, rows.after
    found.added, found.removed, found.changed = rows.added, rows.removed, rows.changed
    found.not_compared = rows.late
    found.examples = [each._asdict() for each in rows.examples]
    return found


def side_of(store: Store, projection: type[Any], filled: Filled) -> Side:
    """The rows of the new code's table, and the projection's own columns as it has them."""
    own, query = set(projection.__struct_fields__), filled_query(projection, filled.name)
    columns = {row[0]: row[1] for row in store.query(f"DESCRIBE TABLE ({query})") if row[0] in own}
    return Side(query, columns)
