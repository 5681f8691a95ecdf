"""The tables of Rows: append-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from magnetar.schemas.commit import Fact, meta_of

from .projected_table import ProjectedTable
from .quarantine import Holding
from .quarantining_table import Made


class RowsTable(ProjectedTable):
    """One generation of the table of a Rows."""

    unit: ClassVar[str] = "rows"
    counting: ClassVar[str] = "countIf({})"
    engine: ClassVar[str] = "MergeTree"
    order: ClassVar[str] = "_at, _id, _version"

    def rows(self, _: int, facts: Sequence[Fact], holding: Holding, /) -> Made:
        """Every row that `project` gives for each event."""
        project = self.projection.project
        takes_meta, encode, framed, checked = self._contract.takes_meta, self._codec.encode, self.framed, self.checked
        made: list[bytes] = []
        for fact in facts:
            if (holding.known or holding.settled) and holding.takes(fact):
                continue
            try:
                found = project(fact.event, meta_of(fact)) if takes_meta else project(fact.event)
                made += [framed(fact, encode(checked(row))) for row in found or ()]
            except Exception as error:  # noqa: BLE001 - the projection's code is anybody's: its key is held
                self.hold(holding, fact, error)
        return Made(made, len(made))

    def is_whole(self, counted: int, below: int, all_of_it: int, *, has_range: bool) -> bool:
        """Rows stay as they are."""
        return below == counted and (has_range or all_of_it == below)
