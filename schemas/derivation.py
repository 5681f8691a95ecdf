"""Avro from annotations: the record schema of a message class, and the codec of its values."""

from __future__ import annotations

import inspect
import io
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

import fastavro
import msgspec

from .errors import DeclarationError, Undecodable
from .immutability import refuse_mutable
from .messages import Immutable, Message, wire_name

Json: TypeAlias = Any
"""What `json.loads` gives: an Avro schema, as a rule."""

SCALARS: Final[Mapping[type, Json]] = {
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    date: {"type": "int", "logicalType": "date"},
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
}
"""The types that a field may have, and what stands for them in Avro. A datetime must be aware."""


def hints_of(cls: type[Any]) -> dict[str, Any]:
    """The resolved annotations of a class. Raises DeclarationError naming what cannot be resolved."""
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"The annotation {error.name!r} of {cls.__qualname__} cannot be resolved.",
            cure=f"Define or import it at the top level of {cls.__module__}.",
            type=cls.__qualname__,
        ) from error


def record_schema(cls: type[Message], *, namespace: str) -> Json:
    """The Avro record of a message class, fields in the order of their declaration, its docstring as `doc`.

    Raises DeclarationError, naming class and field, for what cannot be derived.
    """
    hints = hints_of(cls)
    pairs = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
    fields = [_field(cls, name, wire, hints[name]) for name, wire in pairs]
    schema: Json = {"type": "record", "name": wire_name(cls), "namespace": namespace, "fields": fields}
    if cls.__doc__ and "__doc__" in vars(cls):
        schema["doc"] = inspect.cleandoc(cls.__doc__)
    return schema


def _field(cls: type[Message], name: str, wire: str, annotation: Any) -> Json:
    schema = _avro(annotation, where=f"{cls.__qualname__}.{name}")
    if isinstance(schema, list):
        return {"name": wire, "type": schema, "default": None}
    return {"name": wire, "type": schema}


def _avro(annotation: Any, *, where: str) -> Json:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        branches = [a for a in get_args(annotation) if a is not types.NoneType]
        if len(branches) == 1 and len(get_args(annotation)) == 2:
            return ["null", _avro(branches[0], where=where)]
    if isinstance(annotation, type) and annotation in SCALARS:
        return SCALARS[annotation]
    refuse_mutable(annotation, where=where)
    known = ", ".join(sorted(t.__name__ for t in SCALARS))
    raise DeclarationError(
        f"{where} has the type {_show(annotation)}, which has no Avro type.",
        cure=f"Use one of {known}, or one of them `| None`.",
        field=where,
    )


def _show(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


class RecordCodec:
    """Encodes and decodes the values of one message class: `fastavro` for the bytes, `msgspec` for the types."""

    __slots__ = ("_aware", "_parsed", "_renamed", "_unread", "cls")

    def __init__(self, cls: type[Message], schema: Json, *, written_with: Json | None = None) -> None:
        self.cls = cls
        self._parsed = fastavro.parse_schema(schema)
        self._unread = None if written_with in (None, schema) else fastavro.parse_schema(written_with)
        names, wires = cls.__struct_fields__, cls.__struct_encode_fields__
        self._renamed = {} if names == wires else dict(zip(names, wires, strict=True))
        hints = hints_of(cls)
        self._aware = tuple(n for n in names if datetime in (hints[n], *get_args(hints[n])))

    def encode(self, value: Immutable) -> bytes:
        """The record's Avro bytes, exactly those that `fastavro.schemaless_writer` writes.

        Raises TypeError or ValueError if a field has not the type that its annotation says: neither the class nor
        `fastavro` checks it, and 3.7 would become 3.
        """
        fields = msgspec.structs.asdict(value)
        renamed = {self._renamed[name]: part for name, part in fields.items()} if self._renamed else fields
        try:
            msgspec.convert(renamed, self.cls)
        except msgspec.ValidationError as error:
            raise TypeError(f"{self.cls.__qualname__}: {error}") from error
        for name in self._aware:
            if (at := fields[name]) is not None and at.tzinfo is None:
                raise ValueError(f"{self.cls.__qualname__}.{name} is {at.isoformat()}, a time without a time zone")
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._parsed, renamed)
        return stream.getvalue()

    def decode(self, stream: io.BytesIO) -> Any:
        """Read one record where the stream stands. Raises Undecodable if the bytes are not the schema's."""
        try:
            if self._unread is None:
                fields = fastavro.schemaless_reader(stream, self._parsed, None)
            else:
                fields = fastavro.schemaless_reader(stream, self._unread, self._parsed)
            return msgspec.convert(fields, self.cls)
        except Exception as error:  # fastavro raises whatever its decoders stumble over: EOFError, IndexError, …
            name = wire_name(self.cls)
            raise Undecodable(f"The bytes are not a {name}: {type(error).__name__} ({error}).", type=name) from error


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union annotation, in order; of anything else, itself. Type aliases and nesting are opened."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for part in get_args(annotation) for m in union_members(part))
    if isinstance(annotation, typing.TypeVar):
        return union_members(annotation.__bound__)
    return (annotation,)
