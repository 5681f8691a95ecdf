"""The pure brain: a state with `execute` and `apply`, and the contract that its annotations declare."""

from __future__ import annotations

import types
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from magnetar.schemas import Command, DeclarationError, Event, Immutable, Rejection, wire_name
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.derivation import hints_of
from magnetar.schemas.immutability import refuse_mutable
from magnetar.schemas.names import check_name

from .signatures import check_is_ended, read_apply, read_execute
from .state_check import why_broken
from .state_codec import fingerprint

C_contra = TypeVar("C_contra", bound=Command, contravariant=True)
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)
O_co = TypeVar("O_co", covariant=True)


class Aggregate(Immutable):
    """The state of one thing, and the rules by which it changes. The seed is the class with its defaults.

    A subclass has `execute(self, command[, meta])`, which decides: it returns an event, a tuple of events, `None` for
    nothing to do, or a rejection; and `apply(self, event) -> Self`, which evolves. Both are pure: no clock, no random
    source, no I/O. Their annotations declare which commands, events and rejections exist; a command whose outcome does
    not stand there, None included, is parked.

    `revision` is to be raised when `apply` has changed what it makes of events: states in checkpoints are then folded
    anew. An aggregate that is of no more use may say so with `is_ended`.
    """

    revision: ClassVar[int] = 1

    def is_ended(self) -> bool:
        """Whether the aggregate takes no more commands. Its state is forgotten, its version and its commits stay; each
        later command is parked with the reason `ended`."""
        return False

    @classmethod
    def __declared__(cls) -> None:
        if cls.__bases__ != (Immutable,):
            contract_of(cls)


class Brain(Protocol[C_contra, E_contra, O_co]):
    """What type checkers see of an aggregate: commands in, outcomes out, events back in."""

    def execute(self, command: C_contra, /, *args: Any, **kw: Any) -> O_co:
        """Decide."""
        ...

    def apply(self, event: E_contra, /) -> Self:
        """Evolve."""
        ...


_TAKEN = frozenset({"apply", "execute", "is_ended", "replace", "revision"})


class Contract(NamedTuple):
    """What an aggregate's annotations declare."""

    commands: tuple[type[Command], ...]
    events: tuple[type[Event], ...]
    rejections: tuple[type[Rejection], ...]
    takes_meta: bool
    can_end: bool
    may_do_nothing: bool
    may_emit_several: bool
    alone_types: frozenset[type[Event]]
    """The events that `execute` returns alone."""
    tuple_types: frozenset[type[Event]]
    """Those that it returns in a tuple."""
    rejection_types: frozenset[type[Rejection]]


_CONTRACTS: WeakKeyDictionary[type[Any], Contract] = WeakKeyDictionary()


def contract_of(cls: type[Any]) -> Contract:
    """Read an aggregate's contract from its annotations.

    Raises DeclarationError, naming class and field or method, for an aggregate that cannot mean anything: a state that
    could be changed in place or has no seed, a missing method, a type that is no command, event or rejection, an event
    that `execute` returns and `apply` lacks. signatures.py has what the two methods may look like.
    """
    found = _CONTRACTS.get(cls)
    if found is None:
        found = _CONTRACTS[cls] = _read_contract(cls)
    return found


def _read_contract(cls: type[Any]) -> Contract:
    _check_class(cls)
    _check_state(cls)
    execute, events = read_execute(cls), read_apply(cls)
    if lacking := [event for event in execute.events if event not in events]:
        raise DeclarationError(
            f"{cls.__qualname__}.execute returns {lacking[0].__qualname__}, which {cls.__qualname__}.apply lacks.",
            cure=f"Add {lacking[0].__qualname__} to the annotation of apply's event, and a case for it.",
        )
    AggregateSchema("declared", wire_name(cls), commands=execute.commands, events=events, rejections=execute.rejections)
    fingerprint(cls)
    _check_seed(cls)
    return Contract(
        execute.commands,
        events,
        execute.rejections,
        execute.takes_meta,
        cls.is_ended is not Aggregate.is_ended,
        execute.may_do_nothing,
        execute.may_emit_several,
        frozenset(execute.alone),
        frozenset(execute.in_tuples),
        frozenset(execute.rejections),
    )


def _check_class(cls: type[Aggregate]) -> None:
    if getattr(cls, "__parameters__", ()):
        raise DeclarationError(
            f"{cls.__qualname__} is generic, so that nobody knows what its states are made of.",
            cure="Write one class for each kind of aggregate, with the types that it has.",
        )
    if "revision" not in cls.__struct_fields__ and (type(cls.revision) is not int or cls.revision < 1):
        raise DeclarationError(
            f"{cls.__qualname__}.revision is {cls.revision!r}.",
            cure="It is a whole number: 1, and one more whenever `apply` makes something else of the same events.",
        )
    if "is_ended" not in cls.__struct_fields__:
        check_is_ended(cls)


def _check_state(cls: type[Aggregate]) -> None:
    hints = hints_of(cls)
    for field in msgspec.structs.fields(cls):
        where = f"{cls.__qualname__}.{field.name}"
        if field.name in _TAKEN:
            raise DeclarationError(
                f"{where} is the name of something that every aggregate has.", cure=_cure(field.name)
            )
        check_name(field.name, of=f"field {where}")
        refuse_mutable(hints[field.name], where=where)
        if field.required:
            raise DeclarationError(
                f"{where} has no default, so {cls.__qualname__} has no seed.",
                cure="Give each field of an aggregate the value it has before the first event.",
            )
        if isinstance(field.default, types.FunctionType | property):
            raise DeclarationError(f"{where} is a field and a method.", cure="Rename one of them.")


def _cure(taken: str) -> str:
    return "Write `revision = 2`, without a type." if taken == "revision" else "Rename the field."


def _check_seed(cls: type[Aggregate]) -> None:
    try:
        seed = cls()
    except Exception as error:  # a default factory is the user's code
        raise DeclarationError(
            f"The seed of {cls.__qualname__} cannot be made: {type(error).__name__}: {error}.",
            cure="Mend its defaults.",
        ) from error
    if (broken := why_broken(seed)) is not None:
        raise DeclarationError(
            f"The seed of {cls.__qualname__} is not what its annotations say: {broken}.",
            cure="Give each field a default of its own type.",
        )
