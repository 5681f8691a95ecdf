"""The tables of Rows: append-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from magnetar.schemas.commit import Fact

from .projected_table import ProjectedTable, meta_of


class RowsTable(ProjectedTable):
    """One generation of the table of a Rows."""

    engine: ClassVar[str] = "MergeTree"
    order: ClassVar[str] = "_at, _id, _version"

    def rows(self, _: int, facts: Sequence[Fact], /) -> list[bytes]:
        """Every row that `project` gives for each event."""
        project: Any = self.projection.project  # type: ignore[attr-defined]
        takes_meta, encode, framed, checked = self._contract.takes_meta, self._codec.encode, self.framed, self.checked
        made: list[bytes] = []
        for fact in facts:
            try:
                found = project(fact.event, meta_of(fact)) if takes_meta else project(fact.event)
                made += [framed(fact, encode(checked(row))) for row in found or ()]
            except Exception as error:
                raise self.raised(fact, error) from error
        return made
