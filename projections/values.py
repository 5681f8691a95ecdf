"""Values in ClickHouse's SQL: defaults as literals, and fields of older schemas as those of today's."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any, Final

from .columns import column_type, comment, literal, present

_NAME_IN_TUPLE: Final = re.compile(r"(?:Tuple\(|, )`?([A-Za-z_][A-Za-z0-9_]*)`? [A-Z]")


def default_value(avro: Any, default: Any) -> str:
    """An Avro default, as it stands in a schema's JSON, as an expression of the field's type."""
    return f"CAST({_expression(avro, default)}, {literal(column_type(avro))})"


def _expression(avro: Any, default: Any) -> str:
    if default is None:
        return "NULL"
    avro = {"type": avro} if isinstance(avro, str) else avro
    kind = avro.get("logicalType") or avro["type"]
    if kind in ("bytes", "decimal"):
        data = default.encode("latin-1")
        return _decimal(data, avro["scale"]) if kind == "decimal" else f"unhex('{data.hex()}')"
    if kind in ("string", "uuid", "enum"):
        return f"unhex('{default.encode().hex()}')" if "\0" in default else literal(default)
    if kind == "timestamp-micros":
        return f"fromUnixTimestamp64Micro(toInt64({default}), 'UTC')"
    if kind == "array":
        return f"[{', '.join(default_value(avro['items'], item) for item in default)}]"
    if kind == "map":
        pairs = (
            f"{_expression('string', key)}, {default_value(avro['values'], part)}" for key, part in default.items()
        )
        return f"map({', '.join(pairs)})"
    if kind == "record":
        return f"tuple({', '.join(default_value(field['type'], default[field['name']]) for field in avro['fields'])})"
    return str(default).lower() if isinstance(default, bool) else repr(default)


def _decimal(data: bytes, scale: int) -> str:
    unscaled = int.from_bytes(data, "big", signed=True)
    digits = f"{abs(unscaled):0{scale + 1}d}"
    point = len(digits) - scale
    return literal(f"{'-' if unscaled < 0 else ''}{digits[:point]}.{digits[point:]}")


def definition(field: Any) -> str:
    """A column for a field: its type, its default for rows of messages that had no such field yet, its comment."""
    parts = [column_type(field["type"])]
    if field.get("default") is not None:
        parts.append(f"DEFAULT {default_value(field['type'], field['default'])}")
    if said := comment(field):
        parts.append(f"COMMENT {literal(said)}")
    return " ".join(parts)


def lacking(written: Any, ours: Any) -> str | None:
    """The path of the first field within a written type that ours has not, or None."""
    written, ours = present(written), present(ours)
    if not (isinstance(written, dict) and isinstance(ours, dict)):
        return None
    for part in ("items", "values"):
        if part in written and part in ours:
            return lacking(written[part], ours[part])
    if written["type"] != "record" or ours["type"] != "record":
        return None
    known = {field["name"]: field["type"] for field in ours["fields"]}
    for field in written["fields"]:
        if field["name"] not in known:
            return str(field["name"])
        if (inner := lacking(field["type"], known[field["name"]])) is not None:
            return f"{field['name']}.{inner}"
    return None


def as_of_today(written: Any, ours: Any, path: str, depth: int = 0) -> str:
    """A value that an older schema wrote, as an expression of today's type: what nested records had not yet has its
    default. Most values are the same, and then it is just `path`."""
    if column_type(written) == column_type(ours):
        return path
    target = literal(column_type(ours))
    if isinstance(ours, list):
        if not isinstance(written, list):
            return f"CAST({as_of_today(written, present(ours), path, depth)}, {target})"
        there = as_of_today(present(written), present(ours), f"assumeNotNull({path})", depth)
        return f"if(isNull({path}), NULL, CAST({there}, {target}))"
    each = f"x{depth}"
    if ours["type"] == "array":
        item = as_of_today(written["items"], ours["items"], each, depth + 1)
        return f"arrayMap({each} -> {item}, {path})"
    if ours["type"] == "map":
        value = as_of_today(written["values"], ours["values"], each, depth + 1)
        return f"mapApply((k{depth}, {each}) -> (k{depth}, {value}), {path})"
    before = {field["name"]: field["type"] for field in written["fields"]}
    parts = [
        as_of_today(before[f["name"]], f["type"], f"tupleElement({path}, {literal(f['name'])})", depth)
        if f["name"] in before
        else absent(f)
        for f in ours["fields"]
    ]
    return f"CAST(tuple({', '.join(parts)}), {target})"


def absent(field: Any) -> str:
    """What a field is where its message had none: its default, or else its type's."""
    if field.get("default") is not None:
        return default_value(field["type"], field["default"])
    kind = literal(column_type(field["type"]))
    return f"CAST(defaultValueOfTypeName({kind}), {kind})"


def is_empty(default: Any) -> bool:
    """Whether a default is what ClickHouse gives a new field of a tuple: nothing, zero, an empty text."""
    if isinstance(default, dict):
        return all(is_empty(part) for part in default.values())
    return not (default.strip("\0") if isinstance(default, str) else default)


def record_names(column: str) -> list[str]:
    """The names within the tuples of a column's type, sorted, however ClickHouse has laid its text out."""
    return sorted(_NAME_IN_TUPLE.findall(" ".join(column.split()).replace("( ", "(")))


def new_fields(avro: Any, added: Container[str]) -> list[Any]:
    """The fields of those names of all records within a type. What is within one of them came with it."""
    avro = present(avro)
    if not isinstance(avro, dict):
        return []
    if avro["type"] == "record":
        fields = [[field] if field["name"] in added else new_fields(field["type"], added) for field in avro["fields"]]
        return [each for found in fields for each in found]
    return [each for part in ("items", "values") if part in avro for each in new_fields(avro[part], added)]
