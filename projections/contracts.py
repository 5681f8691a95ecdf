"""What the declarations of rows and folds say: the events that they take, their columns, and what makes them new."""

from __future__ import annotations

import inspect
import json
import types
from hashlib import sha256
from typing import Any, Final, NamedTuple, Self, get_args, get_origin
from weakref import WeakKeyDictionary

from magnetar.schemas import DeclarationError, Event, Meta, wire_name
from magnetar.schemas.derivation import Json, RecordCodec
from magnetar.schemas.derive import record_of
from magnetar.schemas.signatures import members_of, method_hints, method_of, parameters_of, shown, taken

from .storage import Storage, read_codecs, read_storage, refuse_storage
from .windows import Keyed, read_keyed

_ROWS_FORM: Final = "(cls, event: …) -> Iterator[Self] or (cls, event: …, meta: Meta) -> Iterator[Self]"
_FOLD_FORM: Final = "(self, event: …) -> Self | None or (self, event: …, meta: Meta) -> Self | None"
_TAKEN: Final = frozenset({"apply", "codecs", "project", "replace", "revision"})
_TAKEN_IN_ROWS: Final = _TAKEN | {"order_by", "keep"}
_TAKEN_IN_FOLDS: Final = _TAKEN | {"window", "by", "merges"}


class Contract(NamedTuple):
    """What a projection's annotations declare."""

    kind: str
    """`rows` or `fold`."""
    events: tuple[type[Event], ...]
    takes_meta: bool
    record: Json
    """Its fields, as an Avro record."""
    keyed: Keyed | None = None
    """What the rows of a fold are told apart by, if not by the aggregate's id alone."""
    storage: Storage = Storage()
    """How the table is stored."""

    def fingerprint(self, revision: int) -> str:
        """What differs as soon as a table that was filled under another declaration is of no use any more."""
        names = sorted(wire_name(event) for event in self.events)
        more = [repr(self.keyed)] if self.keyed else []
        if self.storage.order_by:  # a table cannot be sorted otherwise later; how long rows are kept, it can be told
            more.append(repr(self.storage.order_by))
        said = json.dumps([self.kind, _shape(self.record), names, revision, *more])
        return sha256(said.encode()).hexdigest()[:16]


def _shape(avro: Any) -> Any:
    """A schema without what is said about it: a better comment is no other table."""
    if isinstance(avro, dict):
        return {key: _shape(value) for key, value in avro.items() if key != "doc"}
    return [_shape(part) for part in avro] if isinstance(avro, list) else avro


_CONTRACTS: WeakKeyDictionary[type[Any], Contract] = WeakKeyDictionary()


def contract_of(cls: type[Any]) -> Contract:
    """What was read when a Rows or a Fold was declared."""
    return _CONTRACTS[cls]


def codec_of(cls: type[Any]) -> RecordCodec:
    """Encodes and decodes its rows."""
    return RecordCodec(cls, contract_of(cls).record)


def read_rows(cls: type[Any]) -> None:
    """Note the contract of a Rows. Raises DeclarationError, naming class and field or method, for what cannot be."""
    method = inspect.getattr_static(cls, "project", None)
    if not isinstance(method, classmethod):
        raise DeclarationError(
            f"{cls.__qualname__} has no class method `project`.",
            cure=f"Write `@classmethod def project{_ROWS_FORM.partition(' or ')[0]}`.",
        )
    project = method.__func__
    if inspect.iscoroutinefunction(project) or inspect.isasyncgenfunction(project):
        raise DeclarationError(
            f"{cls.__qualname__}.project is async: it waits for nothing, or its replay would come out otherwise.",
            cure="Write it without `async`.",
        )
    _note(cls, "rows", "project", project, _ROWS_FORM)
    contract = _CONTRACTS[cls]
    _CONTRACTS[cls] = contract._replace(storage=read_storage(cls, contract.record))


def read_fold(cls: type[Any]) -> None:
    """Note the contract of a Fold. Raises DeclarationError, naming class and field or method, for what cannot be."""
    refuse_storage(cls)
    apply = method_of(cls, "apply", cure=f"Write `def apply{_FOLD_FORM.partition(' or ')[0]}`.")
    hints = _note(cls, "fold", "apply", apply, _FOLD_FORM)
    returned = set(members_of(hints.get("return", Self))) - {types.NoneType}
    if not returned <= {Self, cls}:
        raise DeclarationError(
            f"{cls.__qualname__}.apply returns {shown(hints['return'])}, and has to return the row after the event.",
            cure="Annotate it `-> Self`, or `-> Self | None` if it deletes; return `self.replace(…)`.",
        )
    if lacking := [f.name for f in record_of(cls).fields if not _has_default(cls, f.name)]:
        raise DeclarationError(
            f"{cls.__qualname__}.{lacking[0]} has no default, so that there is no row before the first event.",
            cure="Give it one: it is what the first event finds.",
            field=f"{cls.__qualname__}.{lacking[0]}",
        )
    contract = _CONTRACTS[cls]
    _CONTRACTS[cls] = contract._replace(
        keyed=read_keyed(cls, contract.events, contract.record),
        storage=Storage(codecs=read_codecs(cls, contract.record)),
    )


def _has_default(cls: type[Any], field: str) -> bool:
    fields: tuple[str, ...] = cls.__struct_fields__
    return fields.index(field) >= len(fields) - len(cls.__struct_defaults__)


def _note(cls: type[Any], kind: str, name: str, method: Any, form: str) -> dict[str, Any]:
    taken_by_us = _TAKEN_IN_FOLDS if kind == "fold" else _TAKEN_IN_ROWS
    if taken_names := [field for field in cls.__struct_fields__ if field in taken_by_us]:
        raise DeclarationError(
            f"{cls.__qualname__} has a field {taken_names[0]!r}, which is a name of Magnetar's.",
            cure="Call it something else.",
        )
    parameters = parameters_of(cls, method, most=2, form=form)
    hints = method_hints(cls, method)
    if len(parameters) == 2 and hints.get(parameters[1], Meta) is not Meta:
        raise DeclarationError(
            f"{method.__qualname__} takes {shown(hints[parameters[1]])} as `{parameters[1]}`, and is given the Meta.",
            cure=f"Write `{parameters[1]}: Meta`; whatever else it needs belongs into the event.",
        )
    events = taken(cls, name, hints, parameters[0], Event)
    _check_returned(cls, kind, hints.get("return"))
    record = record_of(cls).avro("magnetar.row")
    _CONTRACTS[cls] = Contract(kind, events, len(parameters) == 2, record)
    return hints


def _check_returned(cls: type[Any], kind: str, returned: Any) -> None:
    """Rows come in something that can be gone through: a row alone is no such thing, and is soon forgotten."""
    if kind == "rows" and returned is not None and (get_origin(returned) is None or Self not in get_args(returned)):
        parts = get_args(returned)
        if cls not in parts:
            raise DeclarationError(
                f"{cls.__qualname__}.project returns {shown(returned)}, and has to yield or return rows of its class.",
                cure="Annotate it `-> Iterator[Self]` and yield them, or `-> tuple[Self, ...]`.",
            )
