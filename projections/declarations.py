"""What users write on the read side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final

from magnetar.schemas import Immutable, wire_name
from magnetar.schemas.names import kebab

from .contracts import read_fold, read_rows
from .storage import refuse_storage
from .windows import Window

_IN_QUERIES: Final = "Say it in the query; or write a Rows, whose table can have it."
_CHOSEN: Final = "What such a query keeps is compressed by its type; write a Rows or a Fold to say otherwise."


class Row(Immutable):
    """One row of a table that users query: its fields are the columns."""

    @classmethod
    def __declared__(cls) -> None:
        """The columns are checked against the query, which may give what no message could have."""
        refuse_storage(cls, {"order_by": _IN_QUERIES, "keep": _IN_QUERIES})
        refuse_storage(cls, {"codecs": _CHOSEN}, whose="Rows and Folds")


class Sql(Row):
    """A query over the event views.

    By default it is a view: always right, and computed whenever it is asked. With `incremental = True` the states of
    its aggregates are kept in a table, to which each event is added once: asking costs as much as there are groups.
    Such a query reads one event, and has none of joins, windows, DISTINCT, LIMIT and subqueries.
    """

    select: ClassVar[str] = ""
    incremental: ClassVar[bool] = False


class Rows(Row):
    """A table to which events add rows. One object is one row; rows are never changed.

    A subclass has `project(cls, event[, meta])`, a class method: it yields rows, or returns some, for one event. The
    annotation of `event` says which events it takes, of one aggregate or of several. It is pure: no clock, no random
    source, no I/O. `meta.version` is the event's own.

    `revision` is to be raised when `project` has changed what it makes of events: the table is then to be rebuilt.
    `order_by = ("airport", "day")` are the fields by which queries choose rows, in whose order the table is stored;
    without it, it is stored as rows come in. `keep = timedelta(days=365)` lets rows go when the time of their command
    is longer ago. `codecs: ClassVar = {"note": "ZSTD(6)"}` compresses a column otherwise than its type would have it.
    """

    revision: ClassVar[int] = 1
    codecs: ClassVar[Mapping[str, str]] = {}
    order_by: ClassVar[tuple[str, ...]] = ()
    keep: ClassVar[timedelta | None] = None

    @classmethod
    def __declared__(cls) -> None:
        super(Row, cls).__declared__()
        if cls.__bases__ != (Row,):
            read_rows(cls)


class Fold(Row):
    """A table with one row for each aggregate: what its events have made of the seed, the class with its defaults.

    With `window = Window(timedelta(hours=1))` there is a row for each aggregate and window of time, which `_window` of
    the view tells; `_late` counts the events that came when it was over. With `by = ("origin",)`, fields of the events
    that are the fold's own as well, there is a row for each of their values instead of each aggregate. Such rows come
    from all partitions, and the view merges them: `merges = {"flights": sum, "longest": max}` says how for each other
    field, with sum, min or max. `codecs` is that of a Rows.

    A subclass has `apply(self, event[, meta]) -> Self | None`, which gives the row after an event; None deletes it, and
    the next event finds the seed. The annotation of `event` says which events it takes, all of one aggregate. It is
    pure: no clock, no random source, no I/O. `meta.version` is the event's own.

    `revision` is to be raised when `apply` has changed what it makes of events: the table is then to be rebuilt.
    """

    revision: ClassVar[int] = 1
    codecs: ClassVar[Mapping[str, str]] = {}
    window: ClassVar[Window | None] = None
    by: ClassVar[tuple[str, ...]] = ()
    merges: ClassVar[Mapping[str, Callable[..., Any]]] = {}

    @classmethod
    def __declared__(cls) -> None:
        super(Row, cls).__declared__()
        if cls.__bases__ != (Row,):
            read_fold(cls)


def has_table(projection: type[Row]) -> bool:
    """Whether a table is kept for it, by generations; otherwise it is a plain view."""
    return issubclass(projection, Rows | Fold) or (issubclass(projection, Sql) and projection.incremental)


def view_name(projection: type[Row]) -> str:
    """The view that users query: `DelaysByRoute` → `delays_by_route`."""
    return kebab(wire_name(projection)).replace("-", "_")
