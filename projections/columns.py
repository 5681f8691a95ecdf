"""From the Avro of a field to its ClickHouse column, and the quoting of names."""

from __future__ import annotations

import re
from typing import Any, Final

from magnetar.schemas import DeclarationError

_PLAIN: Final = {"boolean": "Bool", "long": "Int64", "double": "Float64", "string": "String", "bytes": "String"}
_LOGICAL: Final = {
    "uuid": "UUID",
    "date": "Date32",
    "time-micros": "Int64",
    "decimal": "Decimal({precision}, {scale})",
    "timestamp-micros": "DateTime64(6, 'UTC')",
    "timestamp-millis": "DateTime64(3, 'UTC')",
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?", re.ASCII)


def quoted(name: str) -> str:
    """An identifier, or an event's and its field's joined by a dot, in backquotes. Raises ValueError for any other."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be an identifier")
    return f"`{name}`"


def literal(text: str) -> str:
    """A text as a literal, for the places where ClickHouse takes no parameter: names of files, comments, tokens."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\0", "")
    return f"'{escaped}'"


def column_type(avro: Any, *, is_stored: bool = True) -> str:
    """The ClickHouse type that holds a value of this Avro type: in a table, or as it is read from a block."""
    if isinstance(avro, list):
        inner = column_type(present(avro), is_stored=is_stored)
        if inner.startswith("LowCardinality("):
            return inner.replace("String", "Nullable(String)")
        return f"Nullable({inner})"
    if isinstance(avro, str) and avro in _PLAIN:
        return _PLAIN[avro]
    if isinstance(avro, dict) and avro.get("logicalType", "") in _LOGICAL:
        return _LOGICAL[avro["logicalType"]].format(**avro)
    if isinstance(avro, dict) and avro["type"] in ("map", "array", "record"):
        return _container(avro, is_stored)
    if isinstance(avro, dict) and (avro["type"] == "enum" or (avro["type"] == "string" and "literals" in avro)):
        return "LowCardinality(String)" if is_stored else "String"
    if isinstance(avro, dict) and avro["type"] == "fixed":
        return f"FixedString({avro['size']})"
    if isinstance(avro, dict) and avro["type"] in _PLAIN:
        return _PLAIN[avro["type"]]
    raise DeclarationError(f"There is no ClickHouse column for the Avro type {avro}.")


def _container(avro: Any, is_stored: bool) -> str:
    if avro["type"] == "map":
        return f"Map(String, {column_type(avro['values'], is_stored=is_stored)})"
    if avro["type"] == "array":
        return f"Array({column_type(avro['items'], is_stored=is_stored)})"
    fields = [f"{quoted(f['name'])} {column_type(f['type'], is_stored=is_stored)}" for f in avro["fields"]]
    return f"Tuple({', '.join(fields)})"


def present(avro: Any) -> Any:
    """What a value of `["null", X]` has that is there: X; of any other type, that type."""
    return next(branch for branch in avro if branch != "null") if isinstance(avro, list) else avro


def structure(commit_schema: Any) -> str:
    """How ClickHouse reads the container blocks of one commit schema: never inferred, always of the block's own."""
    fields = commit_schema["fields"]
    return ", ".join(f"{quoted(f['name'])} {column_type(f['type'], is_stored=False)}" for f in fields)


_UNITS: Final = {"time-micros": "microseconds since midnight"}


def comment(field: Any) -> str:
    """What a column says of its field: the field's documentation, and the unit of a bare number."""
    avro = present(field["type"])
    unit = (_UNITS.get(avro.get("logicalType", "")) or avro.get("unit", "")) if isinstance(avro, dict) else ""
    return "; ".join(part for part in (field.get("doc", ""), unit) if part)
