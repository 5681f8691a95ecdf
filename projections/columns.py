"""From the Avro of a field to its ClickHouse column, and the quoting of names."""

from __future__ import annotations

import re
from typing import Any, Final

from magnetar.schemas import DeclarationError

_PLAIN: Final = {"boolean": "Bool", "long": "Int64", "double": "Float64", "string": "String", "bytes": "String"}
_LOGICAL: Final = {
    "uuid": "UUID",
    "date": "Date32",
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


def column_type(avro: Any) -> str:
    """The ClickHouse type that holds a value of this Avro type."""
    if isinstance(avro, list):
        (branch,) = [b for b in avro if b != "null"]
        return f"Nullable({column_type(branch)})"
    if isinstance(avro, str) and avro in _PLAIN:
        return _PLAIN[avro]
    if isinstance(avro, dict):
        if avro.get("logicalType") in _LOGICAL:
            return _LOGICAL[avro["logicalType"]]
        if avro["type"] == "enum":
            return "String"
        if avro["type"] == "fixed":
            return f"FixedString({avro['size']})"
        if avro["type"] == "map":
            return f"Map(String, {column_type(avro['values'])})"
        if avro["type"] == "array":
            return f"Array({column_type(avro['items'])})"
        if avro["type"] == "record":
            fields = [f"{quoted(f['name'])} {column_type(f['type'])}" for f in avro["fields"]]
            return f"Tuple({', '.join(fields)})"
    raise DeclarationError(f"There is no ClickHouse column for the Avro type {avro}.")


def structure(commit_schema: Any) -> str:
    """How ClickHouse reads the container blocks of one commit schema: never inferred, always of the block's own."""
    return ", ".join(f"{quoted(f['name'])} {column_type(f['type'])}" for f in commit_schema["fields"])
