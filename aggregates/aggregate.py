"""The pure brain: a state with `execute` and `apply`, and the contract that its annotations declare."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from magnetar.schemas import Command, DeclarationError, Event, Immutable, Rejection
from magnetar.schemas.derivation import hints_of, record_schema, union_members
from magnetar.schemas.immutability import refuse_mutable
from magnetar.schemas.names import check_name

from .state_codec import fingerprint

C_contra = TypeVar("C_contra", bound=Command, contravariant=True)
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)
O_co = TypeVar("O_co", covariant=True)


class Aggregate(Immutable):
    """The state of one thing, and the rules by which it changes. The seed is the class with its defaults.

    A subclass has `execute(self, command[, meta])`, which decides: it returns an event, a tuple of events, `None` for
    nothing to do, or a rejection; and `apply(self, event) -> Self`, which evolves. Both are pure: no clock, no random
    source, no I/O. Their annotations declare which commands, events and rejections exist.

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
    event_types: frozenset[type[Event]]
    rejection_types: frozenset[type[Rejection]]


_CONTRACTS: WeakKeyDictionary[type[Any], Contract] = WeakKeyDictionary()


def contract_of(cls: type[Any]) -> Contract:
    """Read an aggregate's contract from its annotations.

    Raises DeclarationError, naming class and field or method, for an aggregate that cannot mean anything: a state that
    could be changed in place or has no seed, a missing method, a type that is no command, event or rejection, an event
    that `execute` returns and `apply` lacks.
    """
    found = _CONTRACTS.get(cls)
    if found is None:
        found = _CONTRACTS[cls] = _read_contract(cls)
    return found


def _read_contract(cls: type[Any]) -> Contract:
    _check_state(cls)
    execute, apply = _method(cls, "execute"), _method(cls, "apply")
    execute_hints, apply_hints = _hints(cls, execute), _hints(cls, apply)
    parameters = list(inspect.signature(execute).parameters)[1:]
    if not 1 <= len(parameters) <= 2 or "return" not in execute_hints:
        raise DeclarationError(
            f"{cls.__qualname__}.execute has to read (self, command: …) -> … or (self, command: …, meta: Meta) -> …",
            cure="Annotate the command and what is returned.",
        )
    commands = _members(cls, "execute", execute_hints.get(parameters[0]), Command)
    emitted, rejections = _outcomes(cls, execute_hints["return"])
    event_parameter = list(inspect.signature(apply).parameters)[1]
    events = _members(cls, "apply", apply_hints.get(event_parameter), Event)
    if lacking := [event for event in emitted if event not in events]:
        raise DeclarationError(
            f"{cls.__qualname__}.execute returns {lacking[0].__qualname__}, which {cls.__qualname__}.apply lacks.",
            cure=f"Add {lacking[0].__qualname__} to the annotation of apply's event, and a case for it.",
        )
    for message in (*commands, *events, *rejections):
        record_schema(message, namespace=cls.__qualname__)
    fingerprint(cls)
    takes_meta, can_end = len(parameters) == 2, cls.is_ended is not Aggregate.is_ended
    return Contract(commands, events, rejections, takes_meta, can_end, frozenset(events), frozenset(rejections))


def _check_state(cls: type[Aggregate]) -> None:
    hints = hints_of(cls)
    seed_is_complete = len(cls.__struct_defaults__) == len(cls.__struct_fields__)
    for name in cls.__struct_fields__:
        if name in _TAKEN:
            raise DeclarationError(
                f"{cls.__qualname__}.{name} is the name of something that every aggregate has.",
                cure="Rename the field.",
            )
        check_name(name, of=f"field {cls.__qualname__}.{name}")
        refuse_mutable(hints[name], where=f"{cls.__qualname__}.{name}")
    if not seed_is_complete:
        first = cls.__struct_fields__[0]
        raise DeclarationError(
            f"{cls.__qualname__}.{first} has no default, so {cls.__qualname__} has no seed.",
            cure="Give each field of an aggregate the value it has before the first event.",
        )


def _method(cls: type[Aggregate], name: str) -> Callable[..., Any]:
    method = getattr(cls, name, None)
    if not callable(method):
        raise DeclarationError(
            f"{cls.__qualname__} has no method `{name}`.",
            cure="An aggregate decides in `execute` and evolves in `apply`.",
        )
    found: Callable[..., Any] = method
    return found


def _hints(cls: type[Aggregate], method: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(method, localns={cls.__name__: cls})
    except NameError as error:
        raise DeclarationError(
            f"The annotation {error.name!r} of {method.__qualname__} cannot be resolved.",
            cure=f"Define or import it at the top level of {cls.__module__}, above {cls.__qualname__}.",
        ) from error


def _members(cls: type[Aggregate], method: str, annotation: Any, kind: type[Any]) -> tuple[type[Any], ...]:
    members = union_members(annotation)
    for member in members:
        if not (isinstance(member, type) and issubclass(member, kind)) or member is kind:
            raise DeclarationError(
                f"{cls.__qualname__}.{method} takes {_show(member)}, which is no class derived from {kind.__name__}.",
                cure=f"Annotate it with your {kind.__name__.lower()}s, joined by `|`.",
            )
    return members


def _outcomes(cls: type[Aggregate], annotation: Any) -> tuple[list[type[Event]], tuple[type[Rejection], ...]]:
    events: list[type[Event]] = []
    rejections: list[type[Rejection]] = []
    for member in union_members(annotation):
        parts = [part for part in get_args(member) if part is not Ellipsis] if get_origin(member) is tuple else [member]
        for part in (inner for each in parts for inner in union_members(each)):
            if isinstance(part, type) and issubclass(part, Event) and part is not Event:
                events.append(part)
            elif member is part and isinstance(part, type) and issubclass(part, Rejection) and part is not Rejection:
                rejections.append(part)
            elif member is not types.NoneType:
                raise DeclarationError(
                    f"{cls.__qualname__}.execute returns {_show(part)}, which is no event, rejection or None.",
                    cure="Return an event, a tuple of events, None for nothing to do, or a rejection.",
                )
    return events, tuple(rejections)


def _show(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
