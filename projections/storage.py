"""How the table of a Rows is stored, as its class says: what its rows are ordered by, and how long they are kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple

from magnetar.schemas import DeclarationError
from magnetar.schemas.derivation import Json

from .columns import column_type

DEFAULT_ORDER: Final = ("_at", "_id", "_version")
"""As they come in. It stands behind what a class says, so that rows which are alike there are ordered too."""

_CONTAINERS: Final = ("Array(", "Map(", "Tuple(", "Nullable(Tuple(")
_SECOND: Final = timedelta(seconds=1)
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
    return Storage(tuple(order_by), 0 if keep is None else keep // _SECOND, nullable)


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


def refuse_storage(cls: type[Any], cures: dict[str, str] = _CURES) -> None:
    """Raise DeclarationError for a Fold, or an Sql, that says what a Rows alone may say."""
    fields: tuple[str, ...] = cls.__struct_fields__
    for name, cure in cures.items():
        if name not in fields and getattr(cls, name, None) is not None:
            raise DeclarationError(f"{cls.__qualname__} has `{name}`, which is for Rows alone.", cure=cure)
