"""Structs and unions of structs: messages themselves, and the value objects within them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import convert as check  # each command and event passes here: a dotted name costs a look-up
from msgspec.structs import asdict

from .container_type import Maybe, inside
from .field_type import UNKNOWN_SYMBOL, Convert, FieldType, Inexpressible, Json, Unknown


class Field(NamedTuple):
    """One field of a struct. `default` is msgspec.NODEFAULT if there is none."""

    name: str
    wire: str
    type: FieldType
    default: Any
    doc: str


class Record(FieldType):
    """A struct. `checking` is the class by which `msgspec` checks what is written."""

    def __init__(self, cls: type[Any], fields: list[Field], checking: type[Any]) -> None:
        self.cls = cls
        self._checking = checking
        self.name: str = cls.__wire_name__
        self.fields = fields

    def parts(self) -> Iterable[FieldType]:
        return (field.type for field in self.fields)

    def only_in_python(self) -> str | None:
        """The path of the first field, here or within a field, whose default Avro's JSON cannot say; or None."""
        schema = self.avro("")
        for field, avro in zip(self.fields, schema["fields"], strict=True):
            if field.default is not msgspec.NODEFAULT and "default" not in avro:
                return field.wire
            if (inner := _only_in_python(field.type)) is not None:
                return f"{field.wire}.{inner}"
        return None

    def avro(self, namespace: str) -> Json:
        fields = [self._field(field, inside(namespace, self.name, field.wire)) for field in self.fields]
        schema: Json = {"type": "record", "name": self.name, "namespace": namespace, "fields": fields}
        if self.cls.__doc__ and "__doc__" in vars(self.cls):
            schema["doc"] = inspect.cleandoc(self.cls.__doc__)
        return schema

    def _field(self, field: Field, namespace: str) -> Json:
        schema = {"name": field.wire, "type": field.type.avro(namespace)}
        if isinstance(field.type, Maybe):
            schema["default"] = None
        elif field.default is not msgspec.NODEFAULT:
            with contextlib.suppress(Inexpressible):
                schema["default"] = field.type.default(field.default)
        if field.doc:
            schema["doc"] = field.doc
        return schema

    def writer(self) -> Convert:
        """To a dict by wire names. Raises TypeError or ValueError, naming the class and the field, for a value that is
        not of its annotation's type: neither the class nor `fastavro` checks it, and 3.7 would become 3."""
        cls, checking, name = self.cls, self._checking, self.cls.__qualname__
        renamed = [(field.name, field.wire) for field in self.fields]
        if all(python == wire for python, wire in renamed):
            renamed = []
        converts = [(f.wire, convert) for f in self.fields if (convert := f.type.writer()) is not None]

        def record(value: Any) -> Any:
            if type(value) is not cls:  # the fields that a subclass adds would be lost
                raise TypeError(f"is a {type(value).__qualname__}, not a {name}")
            datum = asdict(value)
            if renamed:
                datum = {wire: datum[python] for python, wire in renamed}
            try:
                check(datum, checking)
            except msgspec.ValidationError as error:
                raise TypeError(f"{name}: {error}") from error
            for wire, convert in converts:
                try:
                    datum[wire] = convert(datum[wire])
                except (TypeError, ValueError) as error:
                    joint = " " if str(error).startswith("is ") else ": "
                    raise type(error)(f"{name}.{wire}{joint}{error}") from error
            return datum

        return record

    def reader(self, written: Json) -> Convert | None:
        """`msgspec` makes the struct from the dict, and takes what an older writer has not from the defaults."""
        types = {field["name"]: field["type"] for field in written["fields"]}
        converts = [
            (field.wire, convert)
            for field in self.fields
            if field.wire in types and (convert := field.type.reader(types[field.wire])) is not None
        ]
        if not converts:
            return None

        def record(datum: Any) -> Any:
            for wire, convert in converts:
                datum[wire] = convert(datum[wire])
            return datum

        return record

    def misfit(self, written: Json) -> str | None:
        if not isinstance(written, dict) or written["type"] != "record":
            return super().misfit(written)
        types = {field["name"]: field["type"] for field in written["fields"]}
        for field in self.fields:
            if field.wire in types:
                if why := field.type.misfit(types.pop(field.wire)):
                    return f".{field.wire}{why}"
            elif field.default is msgspec.NODEFAULT:
                return f" without {field.wire}, which this code requires"
        return f".{next(iter(types))}, which this code lacks" if types else None

    def default(self, value: Any) -> Json:
        return {field.wire: field.type.default(getattr(value, field.name)) for field in self.fields}


def _only_in_python(kind: FieldType) -> str | None:
    if isinstance(kind, Record):
        return kind.only_in_python()
    return next((path for part in kind.parts() if (path := _only_in_python(part)) is not None), None)


class Union(FieldType):
    """A union of structs: a record with a `type` and one optional field per branch, ordered by wire name, as a commit
    has for its events. Branches of the same shape stay distinct, and a new one stays compatible."""

    NAME = "Union"

    def __init__(self, branches: list[Record]) -> None:
        self._branches = {branch.name: branch for branch in sorted(branches, key=lambda branch: branch.name)}

    def parts(self) -> Iterable[FieldType]:
        return self._branches.values()

    def avro(self, namespace: str) -> Json:
        names = list(self._branches)
        kind = {
            "type": "enum",
            "name": "Type",
            "namespace": inside(namespace, self.NAME, "type"),
            "symbols": [UNKNOWN_SYMBOL, *names],
            "default": UNKNOWN_SYMBOL,
        }
        fields: list[Json] = [{"name": "type", "type": kind}]
        for name, branch in self._branches.items():
            record = branch.avro(inside(namespace, self.NAME, name))
            fields.append({"name": name, "type": ["null", record], "default": None})
        return {"type": "record", "name": self.NAME, "namespace": namespace, "fields": fields}

    def writer(self) -> Convert:
        nobody: dict[str, Any] = dict.fromkeys(self._branches)
        by_class = {branch.cls: (name, branch.writer()) for name, branch in self._branches.items()}

        def record(value: Any) -> Any:
            if type(value) not in by_class:
                raise TypeError(f"is a {type(value).__qualname__}, none of {', '.join(nobody)}")
            name, convert = by_class[type(value)]
            return {"type": name, **nobody, name: convert(value)}

        return record

    def reader(self, written: Json) -> Convert | None:
        branches: dict[str, tuple[Convert | None, type[Any]]] = {}
        misfits: dict[str, str] = {}
        for field in written["fields"][1:]:
            name, record = field["name"], field["type"][1]
            if (branch := self._branches.get(name)) is None:
                misfits[name] = ", which this code lacks"
            elif why := branch.misfit(record):
                misfits[name] = why
            else:
                branches[name] = branch.reader(record), branch.cls

        def struct(datum: Any) -> Any:
            name = datum["type"]
            if name not in branches:
                raise Unknown(f"{name}{misfits.get(name, '')}")
            convert, cls = branches[name]
            part = datum[name] if convert is None else convert(datum[name])
            return msgspec.convert(part, cls)

        return struct

    def misfit(self, written: Json) -> str | None:
        """A branch that this code lacks is no misfit until a value is of it."""
        if not isinstance(written, dict) or [f["name"] for f in written.get("fields", [])[:1]] != ["type"]:
            return super().misfit(written)
        return None

    def default(self, value: Any) -> Json:
        raise Inexpressible(value)  # a union's default in Avro is of its first branch, and that is null
