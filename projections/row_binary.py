"""Commits that Python has decoded, as rows of ClickHouse's format RowBinary: for an engine that cannot read their Avro.

The engine gets the same names in the same places as from an Avro block, so that the same statements read them; but what
the envelope may lack is never null. An event type that an event is not of has the empty value of its type there, which
is what a statement makes of its null. So no column is a `Nullable(Tuple(…))`, unless a field of an event is one itself.

The values are not made into Python's and back: a day stays a number, a text its bytes. Source of the format:
ClickHouse's documentation of RowBinary.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from fastavro import parse_schema, schemaless_reader
from magnetar.schemas import PartitionRefused
from magnetar.schemas.framing import write_unsigned

from .columns import present

FORMAT: Final = "RowBinary"

_Write: TypeAlias = Callable[[Any], bytes]

_LONG: Final = struct.Struct("<q").pack
_INT: Final = struct.Struct("<i").pack
_DOUBLE: Final = struct.Struct("<d").pack
_HALVES: Final = struct.Struct("<QQ").pack
_HALF: Final = (1 << 64) - 1
_SMALL: Final = tuple(bytes([length]) for length in range(128))
_DECIMAL_BYTES: Final = ((9, 4), (18, 8), (38, 16), (76, 32))
"""Up to so many digits a Decimal has so many bytes."""


class Form(NamedTuple):
    """How values of a type are written, and the bytes of its empty value."""

    write: _Write
    empty: bytes


class CommitRows:
    """Decodes the commits of one schema, and writes them as rows."""

    def __init__(self, commit_schema: Any) -> None:
        """Raises DeclarationError for a type without a column."""
        self.schema = always_there(commit_schema)
        self._reader = parse_schema(bare(commit_schema))
        self._write = _record(self.schema).write

    def rows(self, payloads: Sequence[bytes]) -> Iterator[bytes]:
        """A row for each. Raises PartitionRefused for bytes that are not the schema's."""
        reader, write = self._reader, self._write
        for payload in payloads:
            stream = io.BytesIO(payload)
            try:
                row = write(schemaless_reader(stream, reader, None, handle_unicode_errors="surrogateescape"))
            except Exception as error:  # fastavro raises whatever its decoders stumble over: EOFError, IndexError, …
                raise _refused(f"{type(error).__name__} ({error})") from error
            if stream.tell() != len(payload):
                raise _refused(f"{len(payload) - stream.tell()} bytes stand behind it")
            yield row


def _refused(why: str) -> PartitionRefused:
    return PartitionRefused(
        f"A message is no commit by its schema: {why}.",
        cure="Somebody else wrote it: find out who, and take the right to do so away.",
    )


# --- schemas ----------------------------------------------------------------------------------------------------------


def always_there(commit_schema: Any) -> Any:
    """A commit's schema in which the optional records of the envelope are always there, and those without fields are
    not: nothing is read of them."""
    named = {"rejection": _present_record, "parked": present, "events": _present_items}
    fields = [
        {**field, "type": named[field["name"]](field["type"])} if field["name"] in named else field
        for field in commit_schema["fields"]
    ]
    return {**commit_schema, "fields": fields}


def _present_items(avro: Any) -> Any:
    return {**avro, "items": _present_record(avro["items"])}


def _present_record(avro: Any) -> Any:
    """The type, and the fields of each of the types."""
    avro = present(avro)
    kind, *optionals = avro["fields"]
    there = [{**field, "type": present(field["type"])} for field in optionals]
    return {**avro, "fields": [kind, *(field for field in there if field["type"]["fields"])]}


def bare(avro: Any) -> Any:
    """The schema that reads the same bytes as what they are: without logical types, and texts undecoded."""
    if isinstance(avro, list):
        return [bare(branch) for branch in avro]
    if isinstance(avro, str):
        return "bytes" if avro == "string" else avro
    kind = {key: part for key, part in avro.items() if key not in ("logicalType", "precision", "scale")}
    if kind["type"] == "record":
        fields = [{"name": field["name"], "type": bare(field["type"])} for field in kind["fields"]]
        return {**kind, "fields": fields}
    for part in ("items", "values"):
        if part in kind:
            kind[part] = bare(kind[part])
    return {**kind, "type": bare(kind["type"])} if isinstance(kind["type"], str) else kind


# --- values -----------------------------------------------------------------------------------------------------------


def form(avro: Any) -> Form:
    """How values of an Avro type are written, as its `columns.column_type` says."""
    if isinstance(avro, list):
        return _nullable(form(present(avro)))
    avro = {"type": avro} if isinstance(avro, str) else avro
    return _FORMS[avro["logicalType"] if avro.get("logicalType") in _FORMS else avro["type"]](avro)


def _same(write: _Write, empty: bytes) -> Callable[[Any], Form]:
    return lambda _: Form(write, empty)


def _length(count: int) -> bytes:
    return _SMALL[count] if count < 128 else write_unsigned(count)


def _text(data: bytes) -> bytes:
    return _length(len(data)) + data


def _bool(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _uuid(text: bytes) -> bytes:
    if len(text) != 36:
        raise ValueError(f"{text!r} is no UUID")
    number = int(text.replace(b"-", b""), 16)
    return _HALVES(number >> 64, number & _HALF)


def _decimal(avro: Any) -> Form:
    width = next(size for digits, size in _DECIMAL_BYTES if avro["precision"] <= digits)
    return Form(
        lambda data: int.from_bytes(data, "big", signed=True).to_bytes(width, "little", signed=True), bytes(width)
    )


def _enum(avro: Any) -> Form:
    return Form({symbol: _text(symbol.encode()) for symbol in avro["symbols"]}.__getitem__, b"\x00")


def _fixed(avro: Any) -> Form:
    return Form(bytes, bytes(avro["size"]))


def _nullable(inner: Form) -> Form:
    write = inner.write
    return Form(lambda value: b"\x01" if value is None else b"\x00" + write(value), b"\x01")


def _array(avro: Any) -> Form:
    write = form(avro["items"]).write
    return Form(lambda items: _length(len(items)) + b"".join(map(write, items)), b"\x00")


def _map(avro: Any) -> Form:
    write = form(avro["values"]).write

    def pairs(items: dict[str, Any]) -> bytes:
        made = [_text(key.encode(errors="surrogateescape")) + write(value) for key, value in items.items()]
        return _length(len(made)) + b"".join(made)

    return Form(pairs, b"\x00")


def _record(avro: Any) -> Form:
    """Its fields, one behind the other. A record that is always there, and not in the message, is empty."""
    parts = [(field["name"], form(field["type"])) for field in avro["fields"]]
    empty = b"".join(each.empty for _, each in parts)
    writes = [(name, each.write) for name, each in parts]

    def fields(datum: Any) -> bytes:
        return empty if datum is None else b"".join([write(datum[name]) for name, write in writes])

    return Form(fields, empty)


_FORMS: Final[dict[str, Callable[[Any], Form]]] = {
    "boolean": _same(_bool, b"\x00"),
    "int": _same(_INT, bytes(4)),
    "long": _same(_LONG, bytes(8)),
    "double": _same(_DOUBLE, bytes(8)),
    "string": _same(_text, b"\x00"),
    "bytes": _same(_text, b"\x00"),
    "uuid": _same(_uuid, bytes(16)),
    "decimal": _decimal,
    "enum": _enum,
    "fixed": _fixed,
    "array": _array,
    "map": _map,
    "record": _record,
}
"""By logical type, or else by type. A `date` is an int and a time a long."""
