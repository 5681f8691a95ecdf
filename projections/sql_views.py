"""Sql projections: views over the event views, checked against what the engine says of them."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from magnetar.schemas import DeclarationError, Immutable, QueryRefused
from magnetar.schemas.annotations import hints_of, opened, union_members

from .columns import literal, quoted
from .declarations import Row, Sql, view_name
from .store import Store

_FITTING: Final[dict[Any, str]] = {
    bool: r"Bool",
    int: r"U?Int\d+",
    float: r"Float\d+",
    str: r"String|FixedString\(\d+\)|UUID|Enum\d+\(.*\)",
    bytes: r"String|FixedString\(\d+\)",
    date: r"Date(32)?",
    datetime: r"DateTime(64)?(\(.*\))?",
    Decimal: r"Decimal(\d+)?\(.*\)",
    UUID: r"UUID",
    time: r"Int64",
    timedelta: r"Int64",
    tuple: r"(Array|Tuple)\(.*\)",
    frozenset: r"Array\(.*\)",
    Mapping: r"Map\(.*\)",
    Enum: r"String|Enum\d+\(.*\)",
    Immutable: r"Tuple\(.*\)",
}
"""By a field's type, the ClickHouse types that it takes."""


def said_of(projection: type[Row]) -> str:
    """What the view's comment says: the docstring."""
    return inspect.cleandoc(vars(projection).get("__doc__") or "") or f"the projection {projection.__name__}"


def create_view(store: Store, context: str, projection: type[Sql], taken: set[str]) -> None:
    """Create or replace the view of an Sql projection.

    Raises DeclarationError for a query that ClickHouse refuses, for a name that is taken, and for fields that differ
    from the query's columns in name or type.
    """
    statement = view_statement(context, projection, taken)
    try:
        columns = store.described(_select_of(projection), context)
    except QueryRefused as error:
        raise DeclarationError(
            f"ClickHouse refuses the query of the projection {projection.__name__}: {in_short(error.what)}",
            cure="Correct it.",
        ) from error
    _refuse_ambiguous(store, context, projection)
    check_fields(projection, columns)
    store.command(statement, database=context)


def _refuse_ambiguous(store: Store, context: str, projection: type[Sql]) -> None:
    """ClickHouse takes a column that two joined tables have from the left one, unless it is told not to.

    It gives the columns other names then, so that this is asked beside what they are. Raises DeclarationError.
    """
    try:
        store.described(f"SELECT * FROM ({_select_of(projection)}) SETTINGS single_join_prefer_left_table = 0", context)
    except QueryRefused as error:
        if "AMBIGUOUS_IDENTIFIER" in error.what:
            raise DeclarationError(
                f"The query of the projection {projection.__name__} has a column that could be of two tables: "
                f"{in_short(error.what)}",
                cure="Say of which: `Bought.sku`.",
            ) from error


def view_statement(context: str, projection: type[Sql], taken: set[str]) -> str:
    """The statement that creates or replaces the view of an Sql projection; its name is taken then.

    Raises DeclarationError if it was before.
    """
    name = view_name(projection)
    if name in taken:
        raise DeclarationError(
            f"The projection {projection.__name__} would need a view {context}.{name}, which is taken.",
            cure="Give it another name.",
        )
    taken.add(name)
    view = f"{quoted(context)}.{quoted(name)}"
    return f"CREATE OR REPLACE VIEW {view} AS {_select_of(projection)} COMMENT {literal(said_of(projection))}"


def _select_of(projection: type[Sql]) -> str:
    return inspect.cleandoc(projection.select).strip().rstrip(";")


def in_short(refusal: str) -> str:
    """What ClickHouse says of a query, without its codes, the query itself, and all that could stand there instead."""
    text = refusal.rpartition("DB::Exception: ")[2] or refusal
    text = re.sub(r"\.? (?:In scope|In query|While processing) .*", "", text, flags=re.DOTALL)
    text = re.sub(r"failed at position \d+ \((.*?)\) \(line .*", r"at `\1`", text, flags=re.DOTALL)
    text = re.sub(r"\.? \([A-Z_]+\)$", "", text).rstrip(". ")
    return text if text.endswith("?") else f"{text}."


def check_fields(projection: type[Sql], columns: dict[str, str]) -> None:
    """Raise DeclarationError unless a query's columns, as the engine says them, are the class's fields."""
    hints, fields = hints_of(projection), projection.__struct_fields__
    if missing := [field for field in fields if field not in columns]:
        raise DeclarationError(
            f"{projection.__name__}.{missing[0]} is no column of its query, whose columns are {', '.join(columns)}.",
            cure="Select it, or remove the field.",
        )
    if extra := [column for column in columns if column not in fields]:
        raise DeclarationError(
            f"The query of {projection.__name__} has a column {extra[0]!r} that the class lacks.",
            cure=f"Add a field {extra[0]}, or do not select it.",
        )
    for field in fields:
        if not _fits(hints[field], columns[field]):
            shown = getattr(hints[field], "__name__", hints[field])
            raise DeclarationError(
                f"{projection.__name__}.{field} is declared as {shown}, and its query gives {columns[field]}.",
                cure="Change the annotation, or convert the column in the query.",
            )


def _fits(annotation: Any, column: str) -> bool:
    members = union_members(opened(annotation)[0])
    kinds = {_kind(member) for member in members if member is not types.NoneType}
    column = re.sub(r"^LowCardinality\((.*)\)$", r"\1", column)
    inner = re.sub(r"^Nullable\((.*)\)$", r"\1", column)
    if inner != column and types.NoneType not in members:
        return False
    kind = kinds.pop() if len(kinds) == 1 else None  # the members of a union of structs are of one kind
    return kind in _FITTING and re.fullmatch(_FITTING[kind], " ".join(inner.split())) is not None


def _kind(annotation: Any) -> Any:
    """The key of an annotation in the table above."""
    annotation, _ = opened(annotation)
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0])
    annotation = get_origin(annotation) or annotation
    return next((kind for kind in (Enum, Immutable) if _derives(annotation, kind)), annotation)


def _derives(annotation: Any, kind: type[Any]) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, kind)
