"""Writing wishes down where the tables are: what a projector does then is what stands there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from magnetar.projections.columns import quoted
from magnetar.projections.generations import Generations, GenerationTable, Origin, Step
from magnetar.projections.gone import drop, gone
from magnetar.projections.held_leases import Held
from magnetar.projections.leased_table import ADMIN_DEFINITIONS, Table
from magnetar.projections.quarantine import wish_statement
from magnetar.projections.scratch_rows import ScratchRows, keep_rows
from magnetar.projections.store import Store
from magnetar.schemas import wire_name

from .control import Settling
from .log import Log
from .mirror_check import check_mirrors, refuse_mirrored
from .pipeline import Pipeline
from .rebuild_room import check_room
from .targets import Target, targets_of
from .wishes import Wish

UseLog = Callable[[], AbstractContextManager[Log]]
ToShow = Callable[[Sequence[Table]], None]
"""Raises if it is known of tables that they cannot be shown again."""

ToFill = Callable[[Sequence[Table]], None]
"""Raises if it is known of tables that they cannot be filled from the log."""


class Wishing:
    """Any thread may call it."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        data: Path,
        to_show: ToShow = lambda _: None,
        to_fill: ToFill = lambda _: None,
        *,
        log: UseLog,
    ) -> None:
        """`data` is the folder with the file of a scratch table's rows; `log` is what a mirror is compared with."""
        self._pipeline = pipeline
        self._store = store
        self._data = data
        self._to_show = to_show
        self._to_fill = to_fill
        self._log = log
        self._steps = GenerationTable(store)
        self._targets = targets_of(pipeline)

    def define(self) -> None:
        """Create what is missing of the databases and of Magnetar's own tables."""
        for statement in (*ADMIN_DEFINITIONS, f"CREATE DATABASE IF NOT EXISTS {quoted(self._pipeline.name)}"):
            self._store.command(statement)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return self._store.rows(sql)

    def read(self, target: Target) -> Generations:
        """What the steps of a target come to."""
        return self._steps.read(*target.steps_key(self._pipeline.name))

    def write(self, target: Target, steps: Iterable[Step], leases: Sequence[Held] = ()) -> Generations:
        """Write down steps of a target; returns what they come to. Raises LeaseLost if one of the leases is gone."""
        return self._steps.write(*target.steps_key(self._pipeline.name), steps, leases)

    def wish(self, wish: Wish, names: Iterable[str], origin: Origin = Origin.TOPICS) -> None:
        """Write down what is to become of the generations.

        Raises SettingsError if it is possible for none of those that are named, DataFolderError for a rebuild that the
        disk has no room for, LogUnavailable for one that the log has not the start for, and StoreUnavailable for one
        from a mirror that has not what the log has.
        """
        self.define()
        if wish is Wish.DROP_GONE:
            self._drop_gone()
            return
        known = {each: self.read(self._targets[each]) for each in names}
        if origin is Origin.MIRROR:
            refuse_mirrored(self._pipeline, known)
        found = wish.steps(known, origin)
        if begun := [
            name for name, steps in found.items() if any(step.generation > known[name].last for step in steps)
        ]:
            if origin is Origin.TOPICS:
                self._to_fill([each for name in begun for each in self._targets[name].tables(1)])
            check_room(self.ask, self._pipeline, begun)
            if origin is Origin.MIRROR:
                with self._log() as log:
                    check_mirrors(self._pipeline, self._store, log, [self._targets[name] for name in begun], self.read)
        for name, steps in found.items():
            if wish is Wish.ROLLBACK:
                self._to_show([each for step in steps for each in self._targets[name].tables(step.generation)])
            self.write(self._targets[name], steps)

    def gone(self) -> list[str]:
        """The projections that have tables and are declared no more."""
        return gone(self.ask, self._pipeline.name, [wire_name(each) for each in self._pipeline.projections])

    def _drop_gone(self) -> None:
        for name in self.gone():
            drop(self._store, self.ask, self._pipeline.name, name)

    def settle(self, settling: Settling) -> None:
        """Write down what is to be done with quarantined keys."""
        self.define()
        for key in settling.keys:
            self._store.command(
                wish_statement(
                    key.projection,
                    f"{self._pipeline.name}/{key.aggregate}",
                    key.partition,
                    key.id,
                    nonce=key.nonce,
                    step=settling.step,
                    reason=settling.reason,
                    actor=settling.actor,
                )
            )

    def keep_scratch(self, rows: ScratchRows) -> None:
        """Make a scratch table, in the place of one of before, or remove it."""
        self.define()
        keep_rows(self._store, rows, self._pipeline.name, self._data)
