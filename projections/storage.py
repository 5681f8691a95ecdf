"""How a table is stored, as its class says: columns' codecs, and of a Rows its order, and how long rows are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from magnetar.schemas import DeclarationError
from magnetar.schemas.derivation import Json

from .columns import column_type

DEFAULT_ORDER: Final = ("_at", "_id", "_version")
"""As they come in. It stands behind what a class says, so that rows which are alike there are ordered too."""

_CONTAINERS: Final = ("Array(", "Map(", "Tuple(", "Nullable(Tuple(")
_SECOND: Final = timedelta(seconds=1)
_CODECS: Final = re.compile(r"\w+(\(\d+(, ?\d+)*\))?(, ?\w+(\(\d+(, ?\d+)*\))?)*", re.ASCII)
"""One or several, each with its numbers: whether there are such, and for that type, is for ClickHouse to say."""
_CURES: Final = {
    "order_by": "Its rows replace each other by their key, which is the table's order; put ORDER BY into the query.",
    "keep": "A row that is deleted by its age would be a state that is lost: the next event would find the defaults. "
    "Let `apply` return None for what is over, or make it a Rows.",
}


class Storage(NamedTuple):
    """What a class says of its table."""

    order_by: tuple[str, ...] = ()
    """Its fields, and `_id`, `_at` and `_version`, in the order of their weight."""
    keep_seconds: int = 0
    """How long rows are kept, by the time of their command; 0 for ever."""
    is_nullable: bool = False
    """Whether a field of the order may be None."""
    codecs: tuple[tuple[str, str], ...] = ()
    """By field, what its column is compressed with, where that is not chosen by its type."""

    @property
    def sorting(self) -> tuple[str, ...]:
        """The columns of the sorting key."""
        return (*self.order_by, *(name for name in DEFAULT_ORDER if name not in self.order_by))


def read_storage(cls: type[Any], record: Json) -> Storage:
    """What a Rows says of it. Raises DeclarationError, naming class and field."""
    order_by, keep = cls.order_by, cls.keep
    kinds = {field["name"]: column_type(field["type"]) for field in record["fields"]}
    _check_order(cls, order_by, kinds)
    if keep is not None and (not isinstance(keep, timedelta) or keep < _SECOND or keep % _SECOND):
        raise DeclarationError(
            f"{cls.__qualname__}.keep is {keep!r}.", cure="It is whole seconds: `keep = timedelta(days=365)`."
        )
    nullable = any("Nullable(" in kinds.get(name, "") for name in order_by)
    seconds = 0 if keep is None else keep // _SECOND
    return Storage(tuple(order_by), seconds, nullable, read_codecs(cls, record))


def read_codecs(cls: type[Any], record: Json) -> tuple[tuple[str, str], ...]:
    """What a Rows or a Fold says of its columns' codecs. Raises DeclarationError, naming class and field."""
    names = [field["name"] for field in record["fields"]]
    if not isinstance(cls.codecs, Mapping):
        raise DeclarationError(
            f"{cls.__qualname__}.codecs is {cls.codecs!r}.",
            cure='It names columns and their codecs: `codecs = {"note": "ZSTD(6)"}`.',
        )
    for name, codec in cls.codecs.items():
        if name not in names:
            raise DeclarationError(
                f"{cls.__qualname__}.codecs has {name!r}, which is no field of it.",
                cure=f"It has {', '.join(names)}.",
                field=f"{cls.__qualname__}.{name}",
            )
        if not isinstance(codec, str) or not _CODECS.fullmatch(codec):
            raise DeclarationError(
                f"{cls.__qualname__}.codecs has {codec!r} for {name!r}.",
                cure="Write it as ClickHouse's CODEC takes it: ZSTD(6), or Delta, LZ4.",
                field=f"{cls.__qualname__}.{name}",
            )
    return tuple(cls.codecs.items())


def _check_order(cls: type[Any], order_by: Any, kinds: dict[str, str]) -> None:
    if isinstance(order_by, str) or not all(isinstance(name, str) for name in order_by):
        raise DeclarationError(
            f"{cls.__qualname__}.order_by is {order_by!r}.",
            cure='It is a tuple of names: `order_by = ("airport", "day")`.',
        )
    for name in order_by:
        if name not in kinds and name not in DEFAULT_ORDER:
            raise DeclarationError(
                f"{cls.__qualname__} is ordered by {name!r}, which is no field of it.",
                cure=f"It has {', '.join([*kinds, *DEFAULT_ORDER])}.",
                field=f"{cls.__qualname__}.{name}",
            )
        if kinds.get(name, "").startswith(_CONTAINERS) or order_by.count(name) > 1:
            raise DeclarationError(
                f"{cls.__qualname__} cannot be ordered by {name!r}: it has many values, or is named twice.",
                cure="Name numbers, texts, dates, times and ids, each once.",
                field=f"{cls.__qualname__}.{name}",
            )


def refuse_storage(cls: type[Any], cures: dict[str, str] = _CURES, *, whose: str = "Rows") -> None:
    """Raise DeclarationError for a class that says of its table what is for `whose` alone, with the cure for each."""
    fields: tuple[str, ...] = cls.__struct_fields__
    for name, cure in cures.items():
        if name not in fields and getattr(cls, name, None) is not None:
            raise DeclarationError(f"{cls.__qualname__} has `{name}`, which is for {whose} alone.", cure=cure)
