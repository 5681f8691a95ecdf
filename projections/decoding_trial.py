"""Whether ClickHouse reads the Avro of a commit schema as it was written, tried with commits that are made up."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fastavro import parse_schema, schemaless_writer
from magnetar.schemas import DeclarationError, QueryRefused

from .columns import present, structure
from .container import container
from .row_binary import FORMAT, CommitRows, bare
from .store import Store
from .tables import commit_values, event_records, event_value

_LONGS: Final = {
    "timestamp-micros": (253_402_300_799_999_999, -62_135_596_800_000_000),
    "timestamp-millis": (253_402_300_799_999, -62_135_596_800_000),
    "time-micros": (86_399_999_999, 0),
}
"""The last and the first that Python knows; other numbers are as far out as 64 bits are."""

_DAYS: Final = (2_932_896, -719_162)
_UUIDS: Final = (b"ffffffff-ffff-7fff-bfff-ffffffffffff", b"00000000-0000-0000-0000-000000000000")
_TEXTS: Final = ("ü \0 ' \\ 🚀".encode(), b"")
_DOUBLES: Final = (-1.7976931348623157e308, 5e-324)


def misreading(store: Store, schema_text: str, file: Path) -> str | None:
    """What the engine does wrong with container blocks of a commit schema, or None.

    It reads made-up commits with everything that the schema can say, and the same as rows that Python has made of them;
    `file` takes them meanwhile. Where it cannot read those either, it is not their Avro that is in the way.
    Raises StoreUnavailable if a server does not answer.
    """
    writer = json.loads(schema_text)
    payloads = made_up(writer)
    try:
        rows = CommitRows(writer)
        wanted = _read(store, writer, rows.rows(payloads), structure(rows.schema), FORMAT, file)
    except (DeclarationError, QueryRefused):
        return None
    try:
        found = _read(store, writer, container(schema_text, payloads), structure(writer), "Avro", file)
    except QueryRefused as error:
        return error.what
    return None if found == wanted else "it reads made-up commits otherwise than they were written"


def _read(store: Store, writer: Any, parts: Any, columns: str, fmt: str, file: Path) -> list[Any]:
    events = [event_value(name, field["name"]) for name, record in event_records(writer) for field in record["fields"]]
    commit = ", ".join(commit_values(writer, 0).values())
    with store.block(parts, columns, file, fmt=fmt) as block:
        question = (
            f"SELECT toString(tuple({commit})) FROM {block.keys} UNION ALL "
            f"SELECT toString(tuple({', '.join(['number', 'i', 'e.type', *events])})) FROM {block.keys} "
            "ARRAY JOIN events AS e, arrayEnumerate(events) AS i"
        )
        return sorted(store.query(question, block=block))


def made_up(writer: Any) -> list[bytes]:
    """Commits with each type of event and rejection, with all that may be there and with nothing of it."""
    schema = parse_schema(bare(writer))
    types = {field["name"]: field["type"] for field in writer["fields"]}
    bases = [
        {name: None if name in ("rejection", "parked") else _value(avro, is_full=full) for name, avro in types.items()}
        for full in (True, False)
    ]
    found = []
    for base, is_full in zip(bases, (True, False), strict=True):
        base["events"] = list(_each(types["events"]["items"], is_full=is_full))
        parked = _value(present(types["parked"]), is_full=is_full)
        rejections = _each(present(types["rejection"]), is_full=is_full)
        found += [base, {**base, "parked": parked}, *({**base, "rejection": each} for each in rejections)]
    return [_encoded(schema, {**commit, "number": number}) for number, commit in enumerate(found, 1)]


def _each(choice: Any, *, is_full: bool) -> Iterator[dict[str, Any]]:
    """A value of each type of a record that has one optional field per type."""
    kind, *optionals = choice["fields"]
    nothing = dict.fromkeys(field["name"] for field in optionals)
    for field in optionals:
        value = _value(present(field["type"]), is_full=is_full)
        yield {kind["name"]: field["name"], **nothing, field["name"]: value}


def _encoded(schema: Any, commit: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    schemaless_writer(stream, schema, commit)
    return stream.getvalue()


def _value(avro: Any, *, is_full: bool) -> Any:
    """A value far out to one side of what a type can hold, or to the other, where what may be null or empty is so."""
    if isinstance(avro, list):
        return _value(present(avro), is_full=True) if is_full else None
    avro = {"type": avro} if isinstance(avro, str) else avro
    if avro["type"] == "record":
        return {field["name"]: _value(field["type"], is_full=is_full) for field in avro["fields"]}
    if avro["type"] == "array":
        return [_value(avro["items"], is_full=full) for full in (True, False)] if is_full else []
    if avro["type"] == "map":
        return {key: _value(avro["values"], is_full=bool(key)) for key in ("ä", "")} if is_full else {}
    full, sparse = _scalars(avro)
    return full if is_full else sparse


def _scalars(avro: Any) -> tuple[Any, Any]:
    match avro["type"], avro.get("logicalType"):
        case "boolean", _:
            return True, False
        case "int", _:
            return _DAYS
        case "long", logical:
            return _LONGS.get(logical, (2**63 - 1, -(2**63)))
        case "double", _:
            return _DOUBLES
        case "string", "uuid":
            return _UUIDS
        case "bytes", "decimal":
            most = 10 ** avro["precision"] - 1
            return tuple(n.to_bytes(most.bit_length() // 8 + 1, "big", signed=True) for n in (most, -most))
        case "enum", _:
            return avro["symbols"][-1], avro["symbols"][0]
        case "fixed", _:
            return bytes(range(avro["size"])), bytes(avro["size"])
        case _:
            return _TEXTS
