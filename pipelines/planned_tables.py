"""What a projector would make in ClickHouse at its start, as a plan: its own statements, written down and not run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from magnetar.projections import Sql
from magnetar.projections.columns import literal, quoted
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.leased_table import Table
from magnetar.projections.sql_views import view_statement
from magnetar.projections.store import Block, Store
from magnetar.schemas import QueryRefused, StoreUnavailable

from .clock import Clock
from .log import Log
from .pipeline import Pipeline
from .projector import Projector
from .provisioning import Sign, Step
from .settings import Settings

_ADMIN: Final = "magnetar"
_TABLES: Final = """SELECT database, name, create_table_query, as_select FROM system.tables
    WHERE database IN ({admin:String}, {context:String})"""
_COLUMNS: Final = """SELECT database, table, name, type FROM system.columns
    WHERE database IN ({admin:String}, {context:String})"""
_DATABASE: Final = re.compile(r"CREATE DATABASE IF NOT EXISTS `?(?P<database>\w+)`?$")
_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS `?(?P<database>\w+)`?\.`?(?P<name>\w+)`? ")
_COLUMN: Final = re.compile(
    r"ALTER TABLE `?(?P<database>\w+)`?\.`?(?P<name>\w+)`? (?P<how>ADD COLUMN IF NOT EXISTS|MODIFY COLUMN) "
    r"`?(?P<column>[\w.]+)`? (?P<kind>.*)$",
    re.DOTALL,
)
_LIFETIME: Final = re.compile(
    r"ALTER TABLE `?(?P<database>\w+)`?\.`?(?P<name>\w+)`? \(MODIFY SETTING .*\), "
    r"\((?:MODIFY TTL _at \+ toIntervalSecond\((?P<seconds>\d+)\)|REMOVE TTL)\)$"
)
_VIEW: Final = re.compile(r"CREATE OR REPLACE VIEW `?(?P<database>\w+)`?\.`?(?P<name>\w+)`? ")
_COMMENT: Final = re.compile(r"COMMENT '((?:[^'\\]|\\.)*)'$")
_TYPE_END: Final = re.compile(r" (?:DEFAULT |COMMENT |CODEC\()")
_FINGERPRINT: Final = re.compile(r" \(fingerprint [0-9a-f]{16}\)$")
_ESCAPED: Final = re.compile(r"\\(.)")
_IS_MISSING: Final = re.compile(r"\bCode: (60|81)\.|UNKNOWN_(TABLE|DATABASE)")
_SECURITY: Final = re.compile(r"( DEFINER = \S+)?( SQL SECURITY \w+)")
_TOKEN: Final = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[()]")
_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'")
_STAR: Final = re.compile(r"(?<![\w)`])\*|\.\*")


class _Statement(NamedTuple):
    sql: str
    database: str | None = None
    """Of the tables that it names without one."""


class PlanningStore(Store):
    """A ClickHouse server that is only read: what would change it is written down instead."""

    def __init__(self, at: Endpoint) -> None:
        self.written: list[_Statement] = []
        super().__init__(at)

    def command(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        block: Block | None = None,
        database: str | None = None,
    ) -> None:
        """Write it down. Rows that a projector would insert are no part of a plan."""
        if parameters is None and block is None:
            self.written.append(_Statement(sql, database))

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, block: Block | None = None
    ) -> Sequence[Sequence[Any]]:
        """The rows of a query; none where its table is still to be made."""
        try:
            return super().query(sql, parameters, block)
        except QueryRefused as error:
            if _IS_MISSING.search(error.what):
                return []
            raise

    def described(self, query: str, database: str) -> dict[str, str]:
        """The columns of a query, also where the database is still to be made."""
        is_there = self.query("SELECT 1 FROM system.databases WHERE name = {name:String}", {"name": database})
        return super().described(query, database if is_there else "system")

    def run(self, subject: str, statements: Sequence[_Statement]) -> None:
        """Do what was planned. Raises StoreUnavailable, with ClickHouse's words, if it refuses."""
        for sql, database in statements:
            try:
                super().command(sql, database=database)
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"The {subject} is not made. {error.what}",
                    cure="If a right is lacking, `magnetar doctor` says which, with the GRANT that gives it. Then "
                    "provision again: what is done is not done twice.",
                ) from error


class _Planned(Projector):
    """A projector that only prepares, and says what it would leave as it is."""

    def __init__(self, pipeline: Pipeline, log: Log, store: Store, settings: Settings, *, clock: Clock) -> None:
        super().__init__(pipeline, log, store, settings, clock=clock)
        self.kept: list[Step] = []

    def _leave(self, table: Table, error: StoreUnavailable, *, is_newest: bool) -> None:
        if is_newest and not {"is_outgrown", "is_not_widened"} & set(error.fields):
            raise error
        if is_newest:
            subject = f"table of {table.target}, generation {table.generation}"
            self.kept.append(Step(Sign.KEEP, subject, f"{error.what} {error.cure}"))

    def _create_view(self, projection: type[Sql], taken: set[str]) -> None:
        """Its columns cannot be asked for while the views that it reads are still to be made."""
        self._store.command(view_statement(self._pipeline.name, projection, taken), database=self._pipeline.name)


def plan_tables(pipeline: Pipeline, log: Log, store: PlanningStore, settings: Settings, *, clock: Clock) -> list[Step]:
    """The steps from what is on the server to what a projector of this code would make there. Reads only.

    Each is done with the same statement that the projector has for it, so that it may run meanwhile.
    """
    store.written.clear()
    projector = _Planned(pipeline, log, store, settings, clock=clock)
    try:
        projector.prepare()
    finally:
        projector.close()
    return [*_Comparison(store, pipeline.name).steps(tuple(store.written)), *projector.kept]


class _Comparison:
    """What is there, and what of the statements is lacking."""

    def __init__(self, store: PlanningStore, context: str) -> None:
        self._store, self._context = store, context
        ours = {"admin": _ADMIN, "context": context}
        self._databases = {name for (name,) in store.query("SELECT name FROM system.databases")}
        self._made_by: dict[tuple[str, str], str] = {}
        self._selects: dict[tuple[str, str], str] = {}
        for database, name, made_by, select in store.query(_TABLES, ours):
            self._made_by[database, name], self._selects[database, name] = made_by, select
        self._columns: dict[tuple[str, str], dict[str, str]] = {}
        for database, table, name, kind in store.query(_COLUMNS, ours):
            self._columns.setdefault((database, table), {})[name] = kind
        self._changed: set[str] = set()
        """The names of tables and views that are not what they will be."""

    def steps(self, statements: Sequence[_Statement]) -> list[Step]:
        """In the order of the statements, which is the one in which they are to be run."""
        found: list[Step] = []
        for statement in statements:
            if match := _DATABASE.match(statement.sql):
                found += self._database(match["database"], statement)
            elif match := _TABLE.match(statement.sql):
                found += self._table((match["database"], match["name"]), statement, statements)
            elif match := _COLUMN.match(statement.sql):
                found += self._column((match["database"], match["name"]), match, statement)
            elif match := _LIFETIME.match(statement.sql):
                found += self._lifetime(f"table {match['database']}.{match['name']}", match["seconds"], statement)
            elif match := _VIEW.match(statement.sql):
                found += self._view((match["database"], match["name"]), statement)
        return found

    def _step(self, sign: Sign, subject: str, detail: str, *statements: _Statement) -> list[Step]:
        return [Step(sign, subject, detail, partial(self._store.run, subject, statements))]

    def _database(self, name: str, statement: _Statement) -> list[Step]:
        if name in self._databases:
            return []
        detail = "what projectors write down" if name == _ADMIN else "tables and views"
        return self._step(Sign.CREATE, f"database {name}", detail, statement)

    def _table(self, key: tuple[str, str], statement: _Statement, all_of_them: Sequence[_Statement]) -> list[Step]:
        if key in self._made_by:
            return []
        later = [
            each
            for each in all_of_them
            if (match := _COLUMN.match(each.sql))
            and (match["database"], match["name"]) == key
            and quoted(match["column"]) not in statement.sql
        ]
        self._changed.add(key[1])
        return self._step(Sign.CREATE, f"table {'.'.join(key)}", _comment_of(statement), statement, *later)

    def _column(self, key: tuple[str, str], match: re.Match[str], statement: _Statement) -> list[Step]:
        is_added = match["how"].startswith("ADD")
        if key not in self._made_by or (is_added and match["column"] in self._columns[key]):
            return []
        self._changed.add(key[1])
        what = f"{match['column']} {_TYPE_END.split(match['kind'], 1)[0]}"
        detail = f"gains column {what}" if is_added else f"column {what}, with the fields that it has got since"
        return self._step(Sign.CHANGE, f"table {'.'.join(key)}", detail, statement)

    def _lifetime(self, subject: str, seconds: str | None, statement: _Statement) -> list[Step]:
        kept = "for ever"
        if seconds is not None:
            kept = f"for {timedelta(seconds=int(seconds))}".removesuffix(", 0:00:00")
        return self._step(Sign.CHANGE, subject, f"keeps its rows {kept}", statement)

    def _view(self, key: tuple[str, str], statement: _Statement) -> list[Step]:
        subject = f"view {'.'.join(key)}"
        if key not in self._made_by:
            self._changed.add(key[1])
            return self._step(Sign.CREATE, subject, _comment_of(statement), statement)
        if self._is_as_it_was(key, statement):
            return []
        self._changed.add(key[1])
        return self._step(Sign.CHANGE, subject, "its query, columns or comments are others", statement)

    def _is_as_it_was(self, key: tuple[str, str], statement: _Statement) -> bool:
        ((wanted,),) = self._store.query(f"SELECT formatQuerySingleLine({literal(statement.sql)})")
        wanted = wanted.replace("CREATE OR REPLACE VIEW", "CREATE VIEW", 1).replace(" COMMENT ''", "")
        found = _SECURITY.sub("", self._made_by[key])
        if _without_columns(wanted) != wanted:
            return self._short(wanted) == self._short(found)
        return self._short(wanted) == self._short(_without_columns(found)) and self._has_still_its_columns(key)

    def _has_still_its_columns(self, key: tuple[str, str]) -> bool:
        """Whether a view has the columns that it would get if it were made now: they do not follow what it reads."""
        text = _TEXT.sub("''", self._selects[key])
        if _STAR.search(text) and self._changed.intersection(re.findall(r"\w+", text)):
            return False
        try:
            now = self._store.described(self._selects[key], self._context)
        except QueryRefused:
            return bool(self._changed)  # what it reads is still to be made, and it is looked at again behind that
        return _in_one_line(now) == _in_one_line(self._columns[key])

    def _short(self, statement: str) -> str:
        """Without the database, which ClickHouse writes into a query that has left it away."""
        return re.sub(rf"`?\b{self._context}\b`?\.", "", statement)


def _in_one_line(columns: Mapping[str, str]) -> dict[str, str]:
    """A query's types are told on several lines, where they are long; a table's are not."""
    return {name: "".join(kind.split()) for name, kind in columns.items()}


def _comment_of(statement: _Statement) -> str:
    found = _COMMENT.search(statement.sql)
    text = "" if found is None else _ESCAPED.sub(lambda each: "\n" if each[1] == "n" else each[1], found[1])
    return _FINGERPRINT.sub("", text).partition("\n")[0]


def _without_columns(statement: str) -> str:
    """A formatted CREATE VIEW without the list of its columns."""
    opening = re.match(r"CREATE VIEW \S+ (?=\()", statement)
    if opening is None:
        return statement
    depth = 0
    for token in _TOKEN.finditer(statement, opening.end()):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if not depth:
            return statement[: opening.end()] + statement[token.end() + 1 :]
    return statement
