"""The projector: brings the event topics of a pipeline into ClickHouse, and answers queries meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import structlog
from magnetar.projections import Sql
from magnetar.projections.decoding import Decoding
from magnetar.projections.freshness import MIRROR, freshness_view
from magnetar.projections.generations import Generations, Kind, Origin, Step, behind
from magnetar.projections.gone import view_of
from magnetar.projections.held_leases import Held
from magnetar.projections.leased_table import LeasedTable, Table
from magnetar.projections.quarantining_table import QuarantiningTable
from magnetar.projections.scratch_rows import ScratchRows
from magnetar.projections.snapshot import progress_of
from magnetar.projections.sql_views import create_view
from magnetar.projections.store import Store
from magnetar.projections.views import RESERVED, views
from magnetar.schemas import LeaseLost, QueryRefused, SettingsError, StoreUnavailable

from .clock import Clock
from .control import Settling
from .feeding import RETRY_SECONDS, Feeding, Source
from .kept import kept
from .log import Log
from .log_start import check_begins
from .pipeline import Pipeline
from .projector_metrics import hide_rebuild, show_rebuild, watch_fed, watch_quarantine
from .rebuild import SWAP_COMMITS_MAX, Filler, Furthest, catch_up, commits_behind
from .settings import Settings
from .sharing import Sharing
from .standing_still import AGAIN_SECONDS, STILL_SECONDS_MAX, stand_still
from .table_kinds import TableKinds
from .targets import Target, targets_of
from .wishes import Wish
from .wishing import Wishing

IDLE_SECONDS: Final = 0.05
"""The pause when no partition has anything new: how much later a row may be visible."""

SWAP_LOOK_SECONDS: Final = 0.2
"""How often it is looked whether a generation has caught up: a query that takes a millisecond."""


FED_SECONDS_MAX: Final = 100.0
"""So long a wish waits for a projector that is just taking its leases, or takes back one that it has lost: on a busy
machine, half a second each. Less than whoever sent the wish waits for the answer."""


class Projector:
    """Mirrors all aggregates of a pipeline, one range of one partition after the other.

    Every generation that was shown once is fed here, by one thread; those that are being filled, by the filler's. Only
    this thread swaps, so that what is shown stands still meanwhile.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        log: Log,
        store: Store,
        settings: Settings,
        *,
        clock: Clock,
        failpoint: Callable[[str], None] | None = None,
        sharing: Sharing | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """With `sharing`, others may feed the same tables, each its own partitions, or other tables. `beat` is called
        for each range."""
        self._pipeline = pipeline
        self._sharing = sharing
        self._still_at: dict[str, float] = {}
        self._store = store
        self._clock = clock
        self._failpoint = failpoint or (lambda _: None)
        self._folder = settings.data.absolute() / "blocks"
        if store.is_embedded:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
        self._kinds = TableKinds(
            pipeline,
            log,
            store,
            self._folder,
            quarantine_keys_max=settings.quarantine_keys_max,
            decoding=Decoding(settings.decoding),
        )
        self._wishing = Wishing(
            pipeline,
            store,
            settings.data.absolute(),
            self._check_are_fed,
            self._check_begin,
            log=lambda: nullcontext(log),
        )
        self._targets = targets_of(pipeline)
        self._known: dict[str, Generations] = {}
        self._tables: dict[Table, LeasedTable] = {}
        mine = None if sharing is None else sharing.mine
        self._source = Source(pipeline, log, clock, threading.Lock(), self._failpoint, mine)
        self._live = Feeding(self._source, name="mirror", beat=beat)
        self._filler = Filler(self._source._replace(failpoint=self._filling_failpoint), beat=beat)
        self._wished = threading.Event()
        self._settling = threading.Event()
        self._settle_at = 0.0
        self._is_cut_off = False
        self._is_open = threading.Event()
        self._look_at = 0.0
        self._logger = structlog.get_logger("magnetar.projector").bind(context=pipeline.name)

    def _filling_failpoint(self, name: str) -> None:
        self._failpoint(f"filling_{name}")

    # --- tables and views ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create what is missing of databases, tables and views. Raises DeclarationError for a wrong projection."""
        self._wishing.define()
        for target in self._targets.values():
            self._known[target.name] = known = self._wishing.read(target)
            for generation in known.fed:
                self._prepare_tables(target, generation, is_newest=generation == known.fed[-1])
            if self._feeds(target.name):
                self._begin_again(target)
        self._create_views()
        for target in self._targets.values():  # whoever dropped it may have been killed before it was gone
            known = self._known[target.name]
            for generation in set(range(1, known.last + 1)) - set(known.fed):
                self._drop_tables(target, generation)

    def _feeds(self, target: str) -> bool:
        """Whether it is for this projector to fill it and to swap it: another group's tables are only shown here."""
        return self._sharing is None or target in self._sharing.tables

    def _prepare_tables(self, target: Target, generation: int, *, is_newest: bool) -> None:
        """Create or widen them. What is older and cannot be widened stays as it is, and is fed no more."""
        for table in target.tables(generation):
            if table in self._tables:
                continue
            made = self._make(table)
            try:
                made.prepare()
            except StoreUnavailable as error:
                self._leave(table, error, is_newest=is_newest)
            else:
                self._tables[table] = made
            if table in self._tables and self._feeds(table.target):
                self._feeding(table).add(made)
            elif table == self._shown(table):  # by another group, or by nobody until a rebuild
                watch_fed(self._pipeline.name, table, lambda: 0)

    def _leave(self, table: Table, error: StoreUnavailable, *, is_newest: bool) -> None:
        """Leave a table as it is that cannot be made or widened; raise if there is no newer one, nor will be."""
        is_due = is_newest and "is_outgrown" in error.fields
        if is_newest and not is_due:
            raise error
        said = "rebuild is due" if is_due else "generation outgrown"
        self._logger.warning(said, **table._asdict(), what=error.what, cure=error.cure)

    def _begin_again(self, target: Target) -> None:
        """What other code has begun to fill can never be shown: this code fills another one instead."""
        filling = self._known[target.name].filling
        if filling is not None and any(table not in self._tables for table in target.tables(filling)):
            self._wishing.write(
                target, [Step(filling, Kind.DROPPED), Step(self._known[target.name].last + 1, Kind.WANTED)]
            )
            self._wished.set()

    def _drop_tables(self, target: Target, generation: int) -> None:
        for table in target.tables(generation):
            self._tables.pop(table, self._make(table)).drop()

    def _make(self, table: Table) -> LeasedTable:
        known = self._known[table.target]
        is_from_mirror = self._is_filling(table) and known.origin is Origin.MIRROR
        mirrored = partial(self._shown_generation, table.aggregate) if is_from_mirror else None
        made = self._kinds.make(table, mirrored=mirrored, failpoint=self._failpoint_of(table))
        if self._sharing is not None:
            made.check_may_grow = partial(self._check_may_grow, table)
        return made

    def _check_may_grow(self, table: Table) -> None:
        """It may be written down that other rows are shown, and the views may still show these: they stand still until
        this projector has shown the others, whoever was about to do it."""
        target = self._targets[table.target]
        known = self._wishing.read(target)
        is_behind = self._is_cut_off or known.swaps != self._known[target.name].swaps
        if table.generation not in (known.shown, known.filling) and is_behind:
            self._wished.set()
            raise LeaseLost(f"Generation {known.shown} of {target.name} is being shown.")

    def _shown_generation(self, aggregate: str) -> int:
        """Of its mirror."""
        return self._known[aggregate].shown

    def _failpoint_of(self, table: Table) -> Callable[[str], None]:
        return self._filling_failpoint if self._is_filling(table) else self._failpoint

    def _is_filling(self, table: Table) -> bool:
        return self._known[table.target].filling == table.generation

    def _feeding(self, table: Table) -> Feeding:
        return self._filler.feeding if self._is_filling(table) else self._live

    def _shown(self, table: Table) -> Table:
        """What the views show in its place."""
        return table._replace(generation=self._known[table.target].shown)

    def _create_views(self) -> None:
        """Views over what is shown. While an outgrown generation is, its views stay as they were when it was not."""
        shown = [self._shown(Table(MIRROR, aggregate, 1)) for aggregate in self._pipeline.aggregates]
        for table in shown:
            self._show(self._targets[table.target])
        outgrown = [table.aggregate for table in shown if table not in self._tables]
        old = {event for aggregate in outgrown for event in self._pipeline.schemas[aggregate].events}
        made = views([self._kinds.mirror(table).tables for table in shown])
        for name, statement in made.items():
            if name not in old:
                self._store.command(statement)
        self._store.command(freshness_view(self._pipeline.name, kept(self._pipeline)))
        for target in self._targets.values():
            if target.projection != MIRROR:
                self._show(target)
        if outgrown:
            return
        names = {name for table in shown for name in self._kinds.mirror(table).tables.shown_names}
        taken = {*made, *names, *RESERVED}
        for projection in self._pipeline.projections:
            if issubclass(projection, Sql) and not projection.incremental:
                self._create_view(projection, taken)

    def _create_view(self, projection: type[Sql], taken: set[str]) -> None:
        """Create or replace the view of a query, which is checked first."""
        create_view(self._store, self._pipeline.name, projection, taken)

    def _show(self, target: Target, failpoint: Callable[[str], None] = lambda _: None) -> None:
        """Show a target's rows: one view shows those of all its tables. Unless another projector has just shown others,
        which `_apply` shows."""
        known = self._known[target.name]
        if self._sharing is not None and self._wishing.read(target).swaps != known.swaps:
            self._wished.set()
            return
        tables = target.tables(known.shown)
        if tables[0] in self._tables:
            self._tables[tables[0]].show(failpoint)
        for table in tables:
            if isinstance(made := self._tables.get(table), QuarantiningTable):
                watch_quarantine(self._pipeline.name, table, made.held_keys)

    # --- feeding ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the lease of every partition, and replay the range that each was at."""
        self._warn_of_gone()
        self._live.open()
        self._is_open.set()
        self._settling.set()
        with self._filler.paused():
            pass

    def _warn_of_gone(self) -> None:
        for name in self._wishing.gone():
            self._logger.warning(
                "projection gone",
                projection=name,
                what=f"{self._pipeline.name}.{view_of(name)} is the table of a projection {name}, and the pipeline has "
                "none of that name: it stays as it is, and is not kept up to date any more.",
                cure=f'Was the class renamed? With wire_name="{name}" it goes on with that table. Otherwise '
                "`magnetar rebuild` with the pipeline's module and --drop-gone removes it.",
            )

    def open_used(self) -> None:
        """The same for the partitions that are not open yet and have something: in tests they are few."""
        self._live.open_used()

    def step(self) -> int:
        """Insert the next range of each partition; returns how many commits they have together."""
        self._look_after()
        return self._live.step()

    def _look_after(self) -> None:
        """What was wished. While a server does not answer, it waits; then all is looked at and shown once more, since
        whoever was cut off may have come to any point."""
        try:
            self._look_after_generations()
            self._look_after_quarantine()
            if self._is_cut_off:
                self._create_views()
                self._is_cut_off = False
        except (StoreUnavailable, QueryRefused) as error:
            if self._store.is_embedded:
                raise
            if not self._is_cut_off:
                self._logger.warning("waiting", what=error.what, cure=error.cure)
            self._is_cut_off = True
            self._wished.set()

    @property
    def lost(self) -> list[str]:
        """The partitions that were lost, and are left alone for a while."""
        return [f"{table.aggregate}/{partition}" for table, partition in self._live.lost]

    def close(self) -> None:
        """Let go of the log."""
        self._filler.close()
        self._live.close()

    # --- generations --------------------------------------------------------------------------------------------------

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query. Any thread may call this."""
        return self._store.rows(sql)

    def wish(self, wish: Wish, names: Iterable[str], origin: Origin = Origin.TOPICS) -> None:
        """See Wishing: the thread that steps does it. Any thread may call this."""
        self._wishing.wish(wish, names, origin)
        self._wished.set()

    def settle(self, settling: Settling) -> None:
        """See Wishing: the thread that steps does it. Any thread may call this."""
        self._wishing.settle(settling)
        self._settling.set()

    def keep_scratch(self, rows: ScratchRows) -> None:
        """See Wishing. Any thread may call this."""
        self._wishing.keep_scratch(rows)

    def look_for_wishes(self) -> None:
        """Look for what was wished where the tables are, by whoever may write there."""
        self._wished.set()
        self._settling.set()

    def _look_after_quarantine(self) -> None:
        if self._settling.is_set() and self._clock.monotonic() >= self._settle_at:
            self._settling.clear()
            if self._live.settle():  # a partition that is lost has to be taken back first
                self._settling.set()
                self._settle_at = self._clock.monotonic() + RETRY_SECONDS

    def _check_begin(self, tables: Sequence[Table]) -> None:
        for aggregate in dict.fromkeys(table.aggregate for table in tables):
            source = self._pipeline.events_of(aggregate)
            check_begins(self._source.log, source.topic, source.partitions)

    def _check_are_fed(self, tables: Sequence[Table]) -> None:
        if self._known:
            for table in tables:
                self._check_is_fed(table)

    def _check_is_fed(self, table: Table) -> None:
        """What is not fed could never be swapped in. Raises SettingsError, or StoreUnavailable if it may come back."""
        until = self._clock.monotonic() + FED_SECONDS_MAX
        while self._unfed(table) and self._is_going_to_be_fed(table) and self._clock.monotonic() < until:
            self._clock.sleep(IDLE_SECONDS)
        if not self._is_going_to_be_fed(table):
            raise SettingsError(
                f"Generation {table.generation} of {table.target} was filled by other code, and is not fed by this "
                "one, so that it is not up to date.",
                cure="Run the code that filled it, and repeat this: it catches up first. Or rebuild: new tables are "
                "filled then.",
            )
        if unfed := self._unfed(table):
            raise StoreUnavailable(
                f"Generation {table.generation} of {table.target} is not fed on {unfed} of "
                f"{self._partitions(table)} partitions, so that it is not up to date.",
                cure="The projector's log says why. A rebuild fills new tables.",
            )

    def _unfed(self, table: Table) -> int:
        """On how many partitions nobody feeds the table just now."""
        return self._partitions(table) - len(self._live.numbers(table))

    def _partitions(self, table: Table) -> int:
        return self._pipeline.events_of(table.aggregate).partitions

    def _is_going_to_be_fed(self, table: Table) -> bool:
        """Whether this projector feeds the table, or is still about to: what is lost of it comes back."""
        return table in self._live.tables or not self._is_open.is_set()

    def _look_after_generations(self) -> None:
        self._filler.check()
        if self._wished.is_set():
            self._wished.clear()
            self._apply_all()
        if self._clock.monotonic() >= self._look_at:
            self._look_at = self._clock.monotonic() + SWAP_LOOK_SECONDS
            for name, known in self._known.items():
                if known.wanted is not None and self._feeds(name):
                    self._swap_if_caught_up(self._targets[name], known.wanted)

    def _apply_all(self) -> None:
        """Raises what one of them has raised, when all have had their turn."""
        failed: Exception | None = None
        for target in self._targets.values():
            try:
                self._apply(target)
            except (StoreUnavailable, QueryRefused) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _apply(self, target: Target) -> None:
        """Begin to feed what is to be fed, show what is to be shown, and drop what is not fed any more."""
        before, known = self._known[target.name], self._wishing.read(target)
        self._known[target.name] = known
        try:
            self._change(target, before, known)
        except BaseException:
            self._known[target.name] = before  # all of it is done again
            raise

    def _change(self, target: Target, before: Generations, known: Generations) -> None:
        if before.filling is not None and before.filling != known.filling and before.filling in known.fed:
            self._feed_live(target.tables(before.filling))  # another projector has shown it
            hide_rebuild(self._pipeline.name, target.name)
        with self._filler.paused() as filling:
            for generation in set(known.fed) - set(before.fed):
                self._prepare_tables(target, generation, is_newest=True)
                self._failpoint("generation_created")
                self._logger.info("generation begun", target=target.name, generation=generation)
            if before.swaps != known.swaps:  # and may have died, or been frozen, before its views showed it
                self._show_again(target, before)
            for generation in set(before.fed) - set(known.fed):
                for table in target.tables(generation):
                    for feeding in (filling, self._live):
                        feeding.drop(table)
                self._failpoint("drop_recorded")
                if self._feeds(target.name):
                    self._drop_tables(target, generation)
                hide_rebuild(self._pipeline.name, target.name)
                self._logger.info("generation dropped", target=target.name, generation=generation)

    def _swap_if_caught_up(self, target: Target, generation: int) -> None:
        tables = target.tables(generation)
        if any(table not in self._tables for table in tables):
            return
        shown = {table: self._goal(table) for table in tables}
        if self._sharing is not None:
            self._swap_if_all_caught_up(target, generation, shown, self._sharing)
        elif not self._is_filling(tables[0]):
            if self._catch_up(shown, self._live):
                self._swap(target, generation)
        elif self._commits_left(target, shown) <= SWAP_COMMITS_MAX:
            with self._filler.paused() as filling:
                if self._catch_up(shown, filling):
                    for table in tables:
                        filling.move(table, self._live)
                    self._swap(target, generation)

    def _swap_if_all_caught_up(
        self, target: Target, generation: int, shown: Mapping[Table, Furthest], sharing: Sharing
    ) -> None:
        """Where several projectors feed: the one that has the first partition lets the shown tables stand still until
        what all have filled is as far. A row that a reader has seen is then in both."""
        is_due = self._clock.monotonic() >= self._still_at.get(target.name, 0.0)
        is_mine = 0 in sharing.mine(target.aggregates[0])
        if not is_due or not is_mine or self._lacking(target, generation, _goals(shown)) > SWAP_COMMITS_MAX:
            return
        begun_at = self._clock.monotonic()
        until, self._still_at[target.name] = begun_at + STILL_SECONDS_MAX, begun_at + AGAIN_SECONDS
        leases = stand_still([(self._make(each), self._partitions(each)) for each in map(self._shown, shown)])
        if self._wishing.read(target) != self._known[target.name]:  # others may be shown: it is looked at next
            self._wished.set()
            return
        goals = _goals(shown)
        while (left := self._lacking(target, generation, goals)) and self._clock.monotonic() < until:
            for table in shown:
                if table in self._live.tables:
                    self._live.step_table(table)
            self._clock.sleep(IDLE_SECONDS)
        if not left:
            try:
                self._swap(target, generation, leases)
                self._still_at.pop(target.name)
            except LeaseLost as error:
                self._logger.info("not shown yet", target=target.name, generation=generation, what=error.what)
        seconds = round(self._clock.monotonic() - begun_at, 3)
        self._logger.info("tables stood still", target=target.name, seconds=seconds, lacking=left)

    def _lacking(self, target: Target, generation: int, goals: Mapping[tuple[str, int], int]) -> int:
        """How many commits a generation lacks, over the partitions of all projectors."""
        found = progress_of(self.ask, self._pipeline.name, target.projection, target.aggregates, generation)
        left = sum(behind(goals, found).values())
        show_rebuild(self._pipeline.name, target.name, sum(found.values()), left)
        return left

    def _feed_live(self, tables: Sequence[Table]) -> None:
        """What was being filled is shown, and what was wished of its quarantined keys meanwhile is done."""
        self._settling.set()
        if any(table in self._filler.feeding.tables for table in tables):
            with self._filler.paused() as filling:
                for table in tables:
                    filling.move(table, self._live)

    def _commits_left(self, target: Target, shown: Mapping[Table, Furthest]) -> int:
        """How many commits the generation that is being filled lacks."""
        filling = self._filler.feeding
        left = sum(commits_behind(goal, filling, table) for table, goal in shown.items())
        commits = sum(number for table in shown for number in filling.numbers(table).values())
        show_rebuild(self._pipeline.name, target.name, commits, left)
        return left

    def _goal(self, table: Table) -> Furthest:
        """How far a table has to be to be shown: as far as what is shown now, which other code may have left behind,
        and as the mirror. Another context's mirror is fed by others, and perhaps elsewhere."""
        further = {self._shown(table)}
        if table.aggregate in self._pipeline.aggregates:
            further.add(Table(MIRROR, table.aggregate, self._known[table.aggregate].shown))
        return Furthest([self._make(each) for each in further])

    def _catch_up(self, shown: Mapping[Table, Furthest], feeding: Feeding) -> bool:
        return all(catch_up(shown[table], feeding, table, partitions=self._partitions(table)) for table in shown)

    def _swap(self, target: Target, generation: int, leases: Sequence[Held] = ()) -> None:
        """1. Writes down that it is shown. 2. Shows it. `prepare` finishes what was killed in between.

        Raises LeaseLost, and shows nothing, if the tables that are shown do not stand still any more.
        """
        before = self._known[target.name]
        self._failpoint("before_swap")
        known = self._wishing.write(target, [Step(generation, Kind.SHOWN)], leases)
        if known.shown != generation:  # it was given up in this moment
            self._wished.set()
            return
        self._known[target.name] = known
        self._feed_live(target.tables(generation))
        hide_rebuild(self._pipeline.name, target.name)
        self._failpoint("swap_recorded")
        self._show_again(target, before)
        self._failpoint("after_swap")
        self._logger.info("generation shown", target=target.name, generation=generation)

    def _show_again(self, target: Target, before: Generations) -> None:
        """Show what is written down now, and was not before."""
        self._show(target, self._failpoint)
        if any(table not in self._tables for table in target.tables(before.shown)):  # outgrown, and other views with it
            self._create_views()


def _goals(shown: Mapping[Table, Furthest]) -> dict[tuple[str, int], int]:
    """By aggregate and partition, how far a generation has to be."""
    return {
        (table.aggregate, partition): number
        for table, goal in shown.items()
        for partition, number in goal.last_numbers().items()
    }
