"""From a Python annotation to its type on the wire; what has none is refused, with the cure."""

from __future__ import annotations

import collections.abc
import enum
import types
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from . import choice_type as choices
from . import container_type as containers
from . import field_type as scalars
from .annotations import doc_of, hints_of, is_struct, opened, show, union_members, without_enums
from .errors import DeclarationError
from .field_type import UNKNOWN_SYMBOL, FieldType
from .immutability import refuse_mutable
from .precision import Precision
from .struct_type import Field, Record
from .struct_type import Union as UnionOfStructs

_SCALARS: Final[Mapping[type, FieldType]] = {
    bool: scalars.Plain("boolean"),
    int: scalars.Plain("long"),
    float: scalars.Float("double"),
    str: scalars.Plain("string"),
    bytes: scalars.Bytes("bytes", bytes),
    date: scalars.Date({"type": "int", "logicalType": "date"}, date),
    datetime: scalars.Instant({"type": "long", "logicalType": "timestamp-micros"}, datetime),
    time: scalars.TimeOfDay({"type": "long", "logicalType": "time-micros"}, time),
    timedelta: scalars.Duration(),
    UUID: scalars.Uuid(),
}
_KNOWN: Final = (
    "Use bool, int, float, str, bytes, Decimal with a Precision, date, time, datetime, timedelta, UUID, an Enum, a "
    "Literal, a struct or a union of structs; one of these `| None`; or a tuple, frozenset or Mapping[str, …] of them."
)
_LITERALS: Final = {bool: "boolean", int: "long", str: "string"}
_FACTORIES: Final = (dict, frozenset, list, set, tuple)


def record_of(cls: type[Any], *, within: tuple[type[Any], ...] = ()) -> Record:
    """The record of a struct class. `within` are the structs around it.

    Raises DeclarationError, naming class and field, for what cannot be derived.
    """
    if cls in within:
        raise DeclarationError(
            f"{cls.__qualname__} is within itself, and Avro's records in ClickHouse's columns cannot be.",
            cure="Refer to the inner one by an id.",
        )
    if cls.__struct_config__.array_like:
        raise DeclarationError(
            f"{cls.__qualname__} is array_like, and on the wire every field has its name.",
            cure="Leave that option away.",
        )
    hints = hints_of(cls)
    fields = [_field(cls, info, hints[info.name], (*within, cls)) for info in msgspec.structs.fields(cls)]
    try:
        msgspec.msgpack.Decoder(cls)
    except TypeError as error:
        raise DeclarationError(f"{cls.__qualname__} cannot be a message: {error}.", cure=_KNOWN) from error
    return Record(cls, fields, _checking(cls, hints))


def _checking(cls: type[Any], hints: dict[str, Any]) -> type[Any]:
    """The class that `msgspec` checks a value's fields by: the class itself, or one like it in which enums may be
    anything, since `msgspec` does not take the members of an enum of numbers for what they are."""
    checked = {info.encode_name: without_enums(hints[info.name]) for info in msgspec.structs.fields(cls)}
    if all(checked[info.encode_name] is hints[info.name] for info in msgspec.structs.fields(cls)):
        return cls
    return msgspec.defstruct(cls.__name__, list(checked.items()), kw_only=True)


def _field(cls: type[Any], info: Any, annotation: Any, within: tuple[type[Any], ...]) -> Field:
    where = f"{cls.__qualname__}.{info.name}"
    made = field_type(annotation, where=where, within=within)
    default = info.default
    if info.default_factory is not msgspec.NODEFAULT:
        if info.default_factory not in _FACTORIES:
            raise DeclarationError(
                f"{where} has a default that is made anew each time: an older message would never be read the same.",
                cure="Give it a fixed default, or none.",
                field=where,
            )
        default = info.default_factory()
    if default is not msgspec.NODEFAULT:
        default = _checked_default(made, annotation, default, where)
    return Field(info.name, info.encode_name, made, default, doc_of(annotation))


def _checked_default(made: FieldType, annotation: Any, default: Any, where: str) -> Any:
    try:
        value = msgspec.convert(default, without_enums(annotation))
        if (write := made.writer()) is not None:
            write(default)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise DeclarationError(
            f"The default of {where} is {default!r}: {error}.", cure="Give it a default of its type.", field=where
        ) from error
    if isinstance(made, containers.Maybe) and value is not None:
        raise DeclarationError(
            f"{where} may be None and has the default {default!r}, where everybody but Python reads null.",
            cure="Make the default None, or drop `| None`.",
            field=where,
        )
    return value


def field_type(annotation: Any, *, where: str, within: tuple[type[Any], ...] = ()) -> FieldType:
    """The type of one annotation. Raises DeclarationError that begins with `where`."""
    annotation, extras = opened(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union(annotation, where, within)
    if origin is Literal:
        return _literal(args, where)
    if annotation is Decimal:
        return _decimal(extras, where)
    if isinstance(annotation, type) and annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum(annotation, where)
    if is_struct(annotation):
        return record_of(annotation, within=within)
    if origin is not None:
        return _container(annotation, where, within)
    raise _underivable(annotation, where)


def _union(annotation: Any, where: str, within: tuple[type[Any], ...]) -> FieldType:
    members = union_members(annotation)
    branches = [member for member in members if member is not types.NoneType]
    if len(branches) == 1:
        inner = field_type(branches[0], where=where, within=within)
    else:
        inner = _structs(branches, where, within)
    if len(branches) == len(members) or isinstance(inner, containers.Maybe):
        return inner
    if isinstance(inner, containers.Array | containers.Map):
        raise DeclarationError(
            f"{where} is a {show(branches[0])} or None, and in ClickHouse that would be the same as an empty one.",
            cure="Let the empty one stand for None, or put it into a struct of its own that may be None.",
            field=where,
        )
    return containers.Maybe(inner)


def _structs(branches: list[Any], where: str, within: tuple[type[Any], ...]) -> FieldType:
    if not all(is_struct(branch) for branch in branches):
        shown = " | ".join(show(branch) for branch in branches)
        raise DeclarationError(
            f"{where} is a union of {shown}, which has no Avro type.",
            cure="A union may have structs only, or one type and None. Make structs of its members.",
            field=where,
        )
    if untagged := [branch for branch in branches if branch.__struct_config__.tag is None]:
        raise DeclarationError(
            f"{where} is a union, and {untagged[0].__qualname__} has no tag to tell it from the others.",
            cure=f"Derive it from State, or declare `class {untagged[0].__name__}(Immutable, tag=True)`.",
            field=where,
        )
    named: dict[str, Any] = {}
    for branch in branches:
        other = named.setdefault(branch.__wire_name__, branch)
        if other is not branch or branch.__wire_name__ == "type":
            raise DeclarationError(
                f"{where} is a union with two branches called {branch.__wire_name__!r} on the wire.",
                cure="Rename one of them.",
                field=where,
            )
    return UnionOfStructs([record_of(branch, within=within) for branch in named.values()])


def _literal(values: tuple[Any, ...], where: str) -> FieldType:
    kinds = {type(value) for value in values} - {types.NoneType}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind not in _LITERALS:
        raise DeclarationError(
            f"{where} is a Literal of {', '.join(map(repr, values))}.",
            cure="Use values of one kind: all texts, all whole numbers, or all truth values.",
            field=where,
        )
    choice = choices.Choice(_LITERALS[kind], tuple(value for value in values if value is not None))
    return containers.Maybe(choice) if None in values else choice


def _decimal(extras: list[Any], where: str) -> FieldType:
    precision = next((extra for extra in extras if isinstance(extra, Precision)), None)
    if precision is None:
        raise DeclarationError(
            f"{where} is a Decimal without a precision.",
            cure="Say how many digits it has, and how many of them behind the point: "
            "`Annotated[Decimal, Precision(18, 2)]`.",
            field=where,
        )
    return scalars.Fixed(precision)


def _enum(cls: type[enum.Enum], where: str) -> FieldType:
    if issubclass(cls, enum.Flag) or not list(cls):
        why = "whose values can be joined" if list(cls) else "which has no members"
        raise DeclarationError(
            f"{where} is a {cls.__qualname__}, {why}.",
            cure="Use a plain Enum with members, or a frozenset of one.",
            field=where,
        )
    made = choices.Symbols(cls)
    for member, symbol in made.symbols.items():
        if symbol == UNKNOWN_SYMBOL or not symbol.isascii() or symbol.startswith("_"):
            raise DeclarationError(
                f"{where}: the symbol of {cls.__qualname__}.{member.name} would be {symbol!r}.",
                cure="Symbols are the members' values where all of them can be, otherwise their names: letters, digits "
                "and underscores, beginning with a letter.",
                field=where,
            )
    return made


def _container(annotation: Any, where: str, within: tuple[type[Any], ...]) -> FieldType:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return containers.Array(field_type(args[0], where=where, within=within))
    if origin is tuple and args:
        return containers.Row([field_type(part, where=where, within=within) for part in args])
    if origin is frozenset:
        item = field_type(args[0], where=where, within=within)
        if isinstance(item, containers.Map):
            raise _underivable(annotation, where)
        return containers.Set(item)
    if origin is collections.abc.Mapping:
        if opened(args[0])[0] is not str:
            raise DeclarationError(
                f"{where} is a Mapping with the keys {show(args[0])}, and those of an Avro map are texts.",
                cure=f"Use `tuple[tuple[{show(args[0])}, {show(args[1])}], ...]`.",
                field=where,
            )
        return containers.Map(field_type(args[1], where=where, within=within))
    raise _underivable(annotation, where)


def _underivable(annotation: Any, where: str) -> DeclarationError:
    refuse_mutable(annotation, where=where)
    cure = _KNOWN
    if annotation in (tuple, frozenset, collections.abc.Mapping):
        cure = f"Say what is in it: `{annotation.__name__}[…]`."
    elif isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        cure = "Derive it from Immutable."
    return DeclarationError(f"{where} has the type {show(annotation)}, which has no Avro type.", cure=cure, field=where)
