"""What users write on the read side."""

from __future__ import annotations

from typing import ClassVar

from magnetar.schemas import Immutable
from magnetar.schemas.names import kebab


class Row(Immutable):
    """One row of a table that users query: its fields are the columns."""

    @classmethod
    def __declared__(cls) -> None:
        """The columns are checked against the query, which may give what no message could have."""


class Sql(Row):
    """A query over the event views."""

    select: ClassVar[str] = ""


def view_name(projection: type[Row]) -> str:
    """The view that users query: `DelaysByRoute` → `delays_by_route`."""
    return kebab(projection.__name__).replace("-", "_")
