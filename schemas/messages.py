"""What users write their domain in: frozen structs for commands, events, rejections and states."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self, dataclass_transform

import msgspec

from .annotations import is_resolvable
from .derive import record_of
from .errors import DeclarationError
from .immutability import refuse_mutable_fields
from .names import check_name, wire_name
from .read_only import freezing, read_only


class ImmutableMeta(msgspec.StructMeta):
    """Makes frozen structs with read-only mappings, notes their wire name, and lets a class check its declaration."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        wire_name = config.pop("wire_name", None) or name
        if (freeze := freezing(namespace, bases)) is not None:
            fields = namespace.get("__annotations__", ())
            defaults = {key: read_only(value) for key, value in namespace.items() if key in fields and value != {}}
            namespace = {**namespace, **defaults, "__post_init__": freeze}
        try:
            cls: Any = super().__new__(mcls, name, bases, namespace, **config)
        except TypeError as error:
            if "cannot follow optional fields" not in str(error):
                raise
            field = str(error).split("'")[1]
            qualified = namespace.get("__qualname__", name)
            raise DeclarationError(
                f"{qualified}.{field} has no default, and stands behind fields that have one.",
                cure="Put it before them, or give it a default.",
            ) from error
        cls.__wire_name__ = wire_name
        if not cls.__struct_config__.frozen:
            raise DeclarationError(
                f"{cls.__qualname__} can be changed in place, and messages and states are values.",
                cure="Leave `frozen=False` away.",
            )
        cls.__declared__()
        return cls


# Here and not at the metaclass: mypy asks the bases first, and `msgspec.Struct` says that its fields can be assigned.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Immutable(msgspec.Struct, metaclass=ImmutableMeta, frozen=True, gc=False):
    """A frozen value: the base of value objects such as an amount of money, which messages and states may have.

    Mappings are copied and made read-only, whoever makes the value. `gc=False`: immutable values form no cycles, and
    millions of states stay out of the collector.
    """

    def replace(self, **changes: Any) -> Self:
        """A copy of this value with some fields changed. Types are not checked here; the test kit checks them."""
        return msgspec.structs.replace(self, **changes)

    @classmethod
    def __declared__(cls) -> None:
        """Called when a subclass has been declared; raises DeclarationError if it cannot mean anything."""
        check_name(wire_name(cls), of=f"class {cls.__qualname__}")
        for field in cls.__struct_encode_fields__:
            check_name(field, of=f"field {cls.__qualname__}.{field}")
        refuse_mutable_fields(cls)


class Message(Immutable):
    """What commands, events and rejections have in common: a name on the wire, and a type there for each field."""

    @classmethod
    def __declared__(cls) -> None:
        super().__declared__()
        if is_resolvable(cls):  # an annotation may name what is declared further down: an aggregate looks again
            record_of(cls)


class Command(Message):
    """A wish: what somebody wants an aggregate to do. It may be rejected."""


class Event(Message):
    """A fact: what happened to an aggregate. It is never changed."""


class Rejection(Message):
    """A domain's no, as a value: why a command was not carried out."""


class State(Immutable, tag=True):
    """One stage of an aggregate's life; a union of them makes illegal states impossible to write."""


class Meta(Immutable):
    """What is known about a message besides its content. `at` is the command's time, never a clock's."""

    id: str
    version: int
    at: datetime
    actor: str | None = None
    correlation_id: str | None = None
