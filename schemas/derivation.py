"""The record of a message class in Avro, and the codec of its values."""

from __future__ import annotations

import io
from typing import Any, Final

import msgspec
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from .annotations import hints_of
from .derive import record_of
from .errors import Undecodable
from .field_type import Json, Unknown
from .messages import Immutable, Message
from .names import wire_name

__all__ = ["Json", "RecordCodec", "UnknownToThisCode", "hints_of", "record_schema"]

_LONG: Final = range(-(2**63), 2**63)


def record_schema(cls: type[Message], *, namespace: str) -> Json:
    """The Avro record of a message class, fields in the order of their declaration, its docstring as `doc`.

    Raises DeclarationError, naming class and field, for what cannot be derived.
    """
    return record_of(cls).avro(namespace)


class UnknownToThisCode(Undecodable):
    """The bytes are what their schema says, and have something that the class does not declare.

    What to do: deploy the code that declares it. Until then commands like that are parked, and a partition with events
    like that is left to newer code.
    """


class RecordCodec:
    """Encodes and decodes the values of one message class: `fastavro` for the bytes, `msgspec` for the types."""

    __slots__ = ("_datum", "_parsed", "_read", "_writer", "cls", "misfit")

    def __init__(self, cls: type[Message], schema: Json, *, written_with: Json | None = None) -> None:
        """`misfit` says what of the writer's schema this class cannot take, or is None."""
        self.cls = cls
        record, written = record_of(cls), schema if written_with is None else written_with
        self._parsed = parse_schema(schema)
        self._datum = record.writer()
        self._writer, self._read = self._parsed, None
        try:
            self.misfit = record.misfit(written)
            if self.misfit is None:
                self._writer = self._parsed if written == schema else parse_schema(written)
                self._read = record.reader(written)
        except Exception as error:  # noqa: BLE001 - the writer may be anybody, and its schema anything
            self.misfit = f" with a schema that cannot be read: {type(error).__name__} ({error})"

    def encode(self, value: Immutable) -> bytes:
        """The record's Avro bytes, exactly those that `fastavro.schemaless_writer` writes.

        Raises TypeError or ValueError, naming class and field, if a value is not of its annotation's type or does not
        fit what Avro has for it.
        """
        datum = self._datum(value)
        stream = io.BytesIO()
        try:
            schemaless_writer(stream, self._parsed, datum)
        except (OverflowError, ValueError) as error:
            where = self.cls.__qualname__
            raise ValueError(_what_does_not_fit(datum, where) or f"{where}: {error}") from error
        return stream.getvalue()

    def decode(self, stream: io.BytesIO) -> Any:
        """Read one record, with the schema it was written with, where the stream stands.

        Raises Undecodable if the bytes are not the schema's, and UnknownToThisCode for a part that the class lacks.
        """
        try:
            fields = schemaless_reader(stream, self._writer, None)
            return msgspec.convert(fields if self._read is None else self._read(fields), self.cls)
        except Unknown as error:
            name = wire_name(self.cls)
            raise UnknownToThisCode(f"The {name} carries {error}.", type=name, unknown=str(error)) from error
        except Exception as error:  # fastavro raises whatever its decoders stumble over: EOFError, IndexError, …
            name = wire_name(self.cls)
            raise Undecodable(f"The bytes are not a {name}: {type(error).__name__} ({error}).", type=name) from error


def _what_does_not_fit(datum: Any, where: str) -> str | None:
    """Which whole number within a datum is too long for Avro, or which text cannot be UTF-8."""
    if isinstance(datum, int):
        return None if datum in _LONG else f"{where} is {datum}, which does not fit 64 bits"
    if isinstance(datum, str):
        return None if datum.isascii() or _is_utf8(datum) else f"{where} is a text with half of a surrogate pair"
    if isinstance(datum, dict):
        return next((why for key, part in datum.items() if (why := _what_does_not_fit(part, f"{where}.{key}"))), None)
    if isinstance(datum, list | tuple):
        return next((why for part in datum if (why := _what_does_not_fit(part, where))), None)
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
