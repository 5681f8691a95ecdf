"""Typed rows from the tables: how clients ask, and how they wait for what they have written."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
from magnetar.projections import Fold, Row, Sql
from magnetar.projections.columns import quoted
from magnetar.projections.contracts import contract_of
from magnetar.projections.declarations import has_table, view_name
from magnetar.projections.freshness import behind_in, patiently
from magnetar.schemas import Position, QueryRefused, SettingsError, StoreUnavailable, TablesBehind, Undecodable
from magnetar.schemas.annotations import hints_of, opened, union_members

from .pipeline import Pipeline
from .receipt import Receipt
from .settings import Settings

if TYPE_CHECKING:
    from magnetar.projections.endpoint import Endpoint
    from magnetar.projections.remote import Remote

R = TypeVar("R", bound=Row)

NEW_COLUMN: Final = "Has a projection gained that column? It comes with its rebuild, which `magnetar status` names."
"""What may be the cause of a column that ClickHouse does not know."""

After = Receipt[Any] | Position | Sequence[Receipt[Any] | Position] | None
"""What the answer has to show: all up to there, in that partition."""


class Found(tuple[R, ...], Generic[R]):  # noqa: SLOT001 - Python lets no subclass of tuple name slots, and `behind` needs a place
    """The rows of an answer. `behind` is None, or says how far the tables were if a stale answer was taken."""

    behind: TablesBehind | None

    def __new__(cls, rows: Sequence[R], behind: TablesBehind | None = None) -> Found[R]:
        found = super().__new__(cls, rows)
        found.behind = behind
        return found

    @property
    def first(self) -> R | None:
        """The first row, or None if there is none."""
        return self[0] if self else None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A question to one projection."""

    where: str = "1"
    parameters: Mapping[str, object] = {}
    order_by: str = ""
    limit: int | None = None
    after: After = None
    wait_seconds: float
    stale: bool = False
    """When the wait is over, take what is there."""


def wanted_of(projection: type[Any], key: str, after: After, wait_seconds: float) -> Wanted:
    """The question for the row of one aggregate. Raises SettingsError for a fold that has more than one of it."""
    if not issubclass(projection, Fold) or contract_of(projection).keyed is not None:
        raise SettingsError(
            f"The rows of {projection.__name__} are not told apart by an aggregate's id alone.",
            cure="Ask for them with `query` and a condition on their fields.",
        )
    return Wanted(where="_id = {id:String}", parameters={"id": key}, after=after, wait_seconds=wait_seconds)


class Reading:
    """One client's way to the tables of a pipeline. Safe to share between threads."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._lock = Lock()
        self._remote: tuple[Endpoint, Remote] | None = None

    def attempts(self, projection: type[R], wanted: Wanted) -> Generator[float, None, Found[R]]:
        """Ask until there is an answer, as `patiently` does: while somebody has the tables open, and they have come to
        the position. Raises what `SyncClient.query` does."""
        sql, formats, positions = self._statement(projection, wanted), _formats(projection), self._positions(wanted)

        def attempt(is_last: bool) -> Found[R]:
            late = next(filter(None, (self._behind(projection, position) for position in positions)), None)
            if late is not None and not (wanted.stale and is_last):
                raise late
            rows = self._rows(sql, wanted.parameters, formats)
            return Found([_row(projection, row) for row in rows], late)

        return patiently(attempt, wanted.wait_seconds)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            remote, self._remote = self._remote, None
        if remote is not None:
            remote[1].close()

    def _positions(self, wanted: Wanted) -> list[Position]:
        after = wanted.after
        several = [] if after is None else [after] if isinstance(after, Receipt | str) else after
        positions = [each.position if isinstance(each, Receipt) else Position(each) for each in several]
        for position in positions:
            context, aggregate, _, _ = position.parts()
            if context != self._pipeline.name and aggregate not in self._read(context):
                raise SettingsError(
                    f"{position} is of another pipeline than {self._pipeline.name!r}, and of none that it reads.",
                    cure="Take the position from a receipt of this one, or of one that it reads.",
                )
        return positions

    def _read(self, context: str) -> Collection[str]:
        """The aggregates of a pipeline that this one reads; none of any other."""
        other = self._pipeline.reads.get(context)
        return () if other is None else other.schemas

    def _behind(self, projection: type[Row], position: Position) -> TablesBehind | None:
        """How far the projection is from a position that it lacks. One of another context it lacks only if it takes
        that aggregate's events, or is a query over that context's views."""
        context, aggregate, _, _ = position.parts()
        here, view = self._pipeline.name, view_name(projection)
        if context == here:
            return behind_in(self._rows, here, position, view)
        late = None
        if has_table(projection):
            if f"{context}/{aggregate}" in self._pipeline.aggregates_of(projection):
                late = behind_in(self._rows, here, position, view)
        elif any(re.search(rf"\b{context}\b", each.select) for each in self._plain_views()):
            late = behind_in(self._rows, context, position)
        return late

    def _plain_views(self) -> list[type[Sql]]:
        """Of the pipeline: one may read another."""
        return [each for each in self._pipeline.projections if issubclass(each, Sql) and not each.incremental]

    def _statement(self, projection: type[Row], wanted: Wanted) -> str:
        if projection not in self._pipeline.projections:
            known = ", ".join(each.__name__ for each in self._pipeline.projections) or "none"
            raise SettingsError(
                f"{projection.__name__} is no projection of the pipeline {self._pipeline.name!r}.",
                cure=f"It has: {known}.",
            )
        columns = ", ".join(quoted(field) for field in projection.__struct_fields__)
        table = f"{quoted(self._pipeline.name)}.{quoted(view_name(projection))}"
        order = f" ORDER BY {wanted.order_by}" if wanted.order_by else ""
        limit = "" if wanted.limit is None else f" LIMIT {int(wanted.limit)}"
        # Names are quoted and values are parameters; `where` and `order_by` are LiteralString, which checkers hold to.
        return f"SELECT {columns} FROM {table} WHERE ({wanted.where}){order}{limit}"  # noqa: S608 - no value is in it: see above

    def _rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, formats: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a query; one for a column that is not there yet is refused with what may be the cause."""
        try:
            return self._ask(sql, parameters, formats)
        except QueryRefused as error:
            if self._server is not None and re.search(r"UNKNOWN_(DATABASE|TABLE)", error.what):
                raise StoreUnavailable(
                    f"The tables of {self._pipeline.name!r} are not on that server: {error.what}",
                    cure="The pipeline's projector makes them: see whether it runs.",
                ) from error
            if "UNKNOWN_IDENTIFIER" in error.what:
                error.cure = NEW_COLUMN
            raise

    def _ask(
        self, sql: str, parameters: Mapping[str, object] | None, formats: Mapping[str, str] | None
    ) -> list[dict[str, Any]]:
        """Ask whoever has the tables open: this process's own embedded pipeline, or the projector's."""
        running = self._pipeline.running
        if running is not None and running.settings.data == self._settings.data:
            return running.rows(sql, parameters or {}, formats or {})
        return self._asked().rows(sql, parameters or {}, formats or {})

    @cached_property
    def _server(self) -> Endpoint | None:
        """Read with the first question: its password may stand in a file."""
        return self._settings.server()

    def _asked(self) -> Remote:
        from magnetar.projections.query import read_endpoint  # these import the engine's client
        from magnetar.projections.remote import Remote

        endpoint = self._server or read_endpoint(self._settings.data)
        if endpoint is None:
            raise StoreUnavailable(
                f"Nobody has the tables in {self._settings.data} open.",
                cure="Run the pipeline (`magnetar dev`), or its projector; or name its folder with MAGNETAR_DATA.",
            )
        with self._lock:
            if self._remote is None or self._remote[0] != endpoint:
                self._remote = (endpoint, Remote(endpoint))
            return self._remote[1]


# --- from columns to fields -------------------------------------------------------------------------------------------

_MICROSECOND: Final = timedelta(microseconds=1)


def _time(micros: int) -> time:
    return (datetime.combine(date.min, time()) + micros * _MICROSECOND).time()


_MADE_OF_INT: Final[Mapping[Any, Callable[[int], Any]]] = {time: _time, timedelta: lambda micros: micros * _MICROSECOND}
"""What stands in a column as a number of microseconds."""


def _kinds(projection: type[Row]) -> dict[str, list[Any]]:
    hints = hints_of(projection)
    return {
        field: [opened(member)[0] for member in union_members(opened(hints[field])[0])]
        for field in projection.__struct_fields__
    }


def _formats(projection: type[Row]) -> dict[str, str]:
    """The columns that are bytes, and would be taken for text."""
    return {field: "bytes" for field, kinds in _kinds(projection).items() if bytes in kinds}


def _row(projection: type[R], row: Mapping[str, Any]) -> R:
    fields = dict(row)
    for field, kinds in _kinds(projection).items():
        for kind in kinds:
            if kind in _MADE_OF_INT and isinstance(fields[field], int):
                fields[field] = _MADE_OF_INT[kind](fields[field])
    try:
        return msgspec.convert(fields, projection, builtin_types=(bytes, date, datetime, time, timedelta))
    except (msgspec.ValidationError, ValueError) as error:
        raise Undecodable(
            f"A row of {projection.__name__} does not fit its fields: {error}.",
            cure="Was the table made by another version of the class? Start its projector with this one.",
        ) from error
