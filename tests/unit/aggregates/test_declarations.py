"""Mistakes that are refused when the class is declared, each with the words of its error."""

import sys
from types import ModuleType
from typing import Any

import pytest
from magnetar.aggregates import contract_of
from magnetar.schemas import DeclarationError

PRELUDE = """
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Annotated, Any, ClassVar, Generic, NewType, Optional, Self, TypeAlias, TypeVar, Union
import msgspec
from magnetar import Aggregate, Command, Event, Meta, Rejection, State

class Rename(Command):
    name: str
class Clear(Command):
    pass
class Renamed(Event):
    name: str
class Cleared(Event):
    pass
class Taken(Rejection):
    pass
class Both(Command, Event):
    pass
class Unsure(Event, Rejection):
    pass
T = TypeVar("T")
class Boxed(Event, Generic[T]):
    pass
class Other(Aggregate):
    def execute(self, command: Rename) -> Renamed:
        return Renamed(command.name)
    def apply(self, event: Renamed) -> Self:
        return self
"""
EXECUTE = "def execute(self, command: Rename) -> Renamed: ..."
APPLY = "def apply(self, event: Renamed) -> Self: ..."

Case = tuple[str, str]


def declare(body: str, *, bases: str = "Aggregate", before: str = "", future: bool = False) -> type:
    """Run a module that declares `class User`."""
    module = ModuleType("declared_by_a_test")
    sys.modules[module.__name__] = module
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    first = "from __future__ import annotations\n" if future else ""
    exec(f"{first}{PRELUDE}\n{before}\nclass User({bases}):\n{lines}\n", module.__dict__)
    declared: type = module.User
    return declared


def both(execute: str = EXECUTE, apply: str = APPLY, fields: str = "name: str = ''") -> str:
    return f"{fields}\n{execute}\n{apply}"


MISSING: list[Case] = [
    (APPLY, "User has no method `execute`. An aggregate decides in `execute` and evolves in `apply`."),
    (EXECUTE, "User has no method `apply`."),
    ("name: str = ''", "User has no method `execute`."),
]

EXECUTES: list[Case] = [
    (
        "def execute(self, command): ...",
        "User.execute does not say which commands it takes. Annotate `command` with your",
    ),
    ("def execute(self, command: Rename): ...", "User.execute does not say what it returns. Annotate it."),
    ("def execute(self) -> Renamed: ...", "User.execute has to read (self, command: …)"),
    ("def execute() -> Renamed: ...", "User.execute has to read (self, command: …)"),
    ("def execute(self, command: Rename, meta: Meta, more: int) -> Renamed: ...", "User.execute has to read (self,"),
    ("def execute(self, command: Rename, *, meta: Meta) -> Renamed: ...", "and reads (self, command: "),
    ("def execute(self, *commands: Rename) -> Renamed: ...", "User.execute has to read (self, command: …)"),
    ("def execute(self, command: Rename, **more: Meta) -> Renamed: ...", "User.execute has to read (self, command: …)"),
    (
        "def execute(self, command: Rename, version: int) -> Renamed: ...",
        "takes int as `version`, and is given the Meta",
    ),
    (
        "def execute(self, meta: Meta, command: Rename) -> Renamed: ...",
        "takes .*Rename as `command`, and is given the Meta",
    ),
    ("@staticmethod\ndef execute(command: Rename) -> Renamed: ...", "User.execute is a staticmethod and no method."),
    ("@classmethod\ndef execute(cls, command: Rename) -> Renamed: ...", "User.execute is a classmethod and no method."),
    ("@property\ndef execute(self) -> Renamed: ...", "User.execute is a property and no method."),
    ("async def execute(self, command: Rename) -> Renamed: ...", "User.execute is async: it waits for nothing"),
    ("async def execute(self, command: Rename) -> Renamed:\n    yield 1", "User.execute is async"),
    (
        "def execute(self, command: Rename) -> Iterator[Renamed]:\n    yield Renamed('')",
        "User.execute yields, and has to return",
    ),
    ("def execute(self, command: Renamed) -> Renamed: ...", "User.execute takes Renamed, which is a class of Events."),
    (
        "def execute(self, command: Rename | Taken) -> Renamed: ...",
        "takes Taken, which is a class of Rejections. Annotate",
    ),
    ("def execute(self, command: Command) -> Renamed: ...", "takes Command, which stands for every command"),
    (
        "def execute(self, command: Any) -> Renamed: ...",
        "User.execute takes .*Any, which is no class derived from Command",
    ),
    ("def execute(self, command: object) -> Renamed: ...", "takes object, which is no class derived from Command"),
    ("def execute(self, command: Rename | None) -> Renamed: ...", "takes None, which is no class derived from Command"),
    (
        "def execute(self, command: Optional[Rename]) -> Renamed: ...",
        "takes None, which is no class derived from Command",
    ),
    ("def execute(self, command: type[Rename]) -> Renamed: ...", r"takes type\[.*Rename\], which is no class"),
    ("def execute(self, command: T) -> Renamed: ...", "takes ~T, which is no class derived from Command"),
    ("def execute(self, command: Both) -> Renamed: ...", "takes Both, which is derived from Command and from Event"),
    ("def execute(self, command: Other) -> Renamed: ...", "takes Other, which is no class derived from Command"),
]

OUTCOMES: list[Case] = [
    ("Cleared", "User.execute returns Cleared, which User.apply lacks. Add Cleared to the annotation of apply's event"),
    ("tuple[Renamed, Cleared]", "User.execute returns Cleared, which User.apply lacks"),
    (
        "list[Renamed]",
        r"returns list\[.*Renamed\], which is no event, rejection or None. Return an event, a tuple of events",
    ),
    ("set[Renamed]", r"returns set\[.*Renamed\], which is no event"),
    ("Iterator[Renamed]", r"returns .*Iterator\[.*Renamed\], which is no event"),
    ("tuple", "returns tuple, which is no event"),
    ("str", "returns str, which is no event, rejection or None"),
    ("Renamed | bool", "returns bool, which is no event, rejection or None"),
    ("Any", "returns .*Any, which is no event"),
    ("Event", "returns Event, which stands for every event"),
    ("Renamed | Rejection", "returns Rejection, which stands for every rejection"),
    ("Rename", "returns Rename, which is no event, rejection or None"),
    ("tuple[Renamed, Taken]", "returns Taken within a tuple: a rejection stands alone"),
    ("tuple[Renamed | None, ...]", "returns None within a tuple, which is no event"),
    ("tuple[Renamed, tuple[Renamed, Renamed]]", "within a tuple, which is no event"),
    ("Unsure", "returns Unsure, which is derived from Event and from Rejection"),
    ("Both", "returns Both, which is no event"),
    ("Boxed[int]", r"returns .*Boxed\[int\], which is generic, so that it has no one schema"),
    ("Boxed", "returns Boxed, which is generic"),
    ("Self", "returns .*Self, which is no event"),
]

APPLIES: list[Case] = [
    (
        "def apply(self, event) -> Self: ...",
        "User.apply does not say which events it takes. Annotate `event` with your",
    ),
    ("def apply(self) -> Self: ...", r"User.apply has to read \(self, event: …\) -> Self, and reads \(self\)"),
    ("def apply(self, event: Renamed, meta: Meta) -> Self: ...", r"User.apply has to read \(self, event: …\) -> Self"),
    ("def apply(self, *, event: Renamed) -> Self: ...", r"User.apply has to read \(self, event: …\) -> Self"),
    ("def apply(self, event: Rename) -> Self: ...", "User.apply takes Rename, which is a class of Commands."),
    ("def apply(self, event: Event) -> Self: ...", "User.apply takes Event, which stands for every event"),
    ("def apply(self, event: Renamed | Taken) -> Self: ...", "User.apply takes Taken, which is a class of Rejections."),
    ("def apply(self, event: Renamed | Boxed[int]) -> Self: ...", r"takes .*Boxed\[int\], which is generic"),
    (
        "def apply(self, event: Renamed) -> None: ...",
        "User.apply returns None, and has to return the state after the event",
    ),
    (
        "def apply(self, event: Renamed) -> Self | None: ...",
        "and has to return the state after the event. Annotate it `-> Self`",
    ),
    ("def apply(self, event: Renamed) -> Other: ...", "User.apply returns Other, and has to return the state"),
    ("def apply(self, event: Renamed) -> Renamed: ...", "User.apply returns Renamed, and has to return the state"),
    ("async def apply(self, event: Renamed) -> Self: ...", "User.apply is async"),
    ("def apply(self, event: Renamed) -> Self:\n    yield self", "User.apply yields, and has to return"),
    ("@staticmethod\ndef apply(event: Renamed) -> Self: ...", "User.apply is a staticmethod and no method"),
    (
        "@singledispatchmethod\ndef apply(self, event: Renamed) -> Self: ...",
        "User.apply is a singledispatchmethod and no method",
    ),
    ("apply = 3", "User.apply is a int and no method"),
]

STATES: list[Case] = [
    ("name: str", "User.name has no default, so User has no seed. Give each field"),
    ("name: str = msgspec.field(name='n')", "User.name has no default"),
    ("names: list[str] = []", r"User.names is a list, which could be changed in place.*Use `tuple\[…, ...\]`"),
    ("name: str = 7", "The seed of User is not what its annotations say: User.name: Expected `str`, got `int`"),
    (
        "names: tuple[int, ...] = msgspec.field(default_factory=lambda: [1])",
        r"User.names is \[1\], and would be read as \(1,\)",
    ),
    ("replace: bool = False", "User.replace is the name of something that every aggregate has. Rename the field."),
    ("is_ended: bool = False", "User.is_ended is the name of something that every aggregate has"),
    (
        "revision: int = 2",
        "User.revision is the name of something that every aggregate has. Write `revision = 2`, without",
    ),
    ("revision = 0", "User.revision is 0. It is a whole number: 1, and one more whenever `apply`"),
    ("revision = '2'", "User.revision is '2'. It is a whole number"),
    ("revision = True", "User.revision is True. It is a whole number"),
    ("name: str = ''\ndef name(self): ...", "User.name is a field and a method. Rename one of them."),
    ("name: str = ''\n@property\ndef name(self): ...", "User.name is a field and a method"),
    ("_name: str = ''", "field User._name has the name '_name', which cannot stand in Avro and ClickHouse"),
    ("def is_ended(self, now) -> bool: ...", r"User.is_ended has to read \(self\) -> bool"),
    ("def is_ended(self) -> str: ...", r"User.is_ended has to read \(self\) -> bool"),
    ("@property\ndef is_ended(self) -> bool: ...", "User.is_ended is a property and no method"),
    ("async def is_ended(self) -> bool: ...", "User.is_ended is async"),
    ("name: str = msgspec.field(default_factory=lambda: 1 / 0)", "The seed of User cannot be made: ZeroDivisionError"),
]


def refused(body: str, words: str, **how: Any) -> None:
    pattern = words if "\\" in words or ".*" in words else words.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(DeclarationError, match=pattern) as caught:
        declare(body, **how)
    assert caught.value.cure, "an error says what to do"


@pytest.mark.parametrize(("body", "words"), MISSING)
def test_an_aggregate_without_a_method_is_refused(body: str, words: str) -> None:
    refused(body, words)


@pytest.mark.parametrize(("execute", "words"), EXECUTES)
def test_an_execute_that_no_worker_could_call_is_refused(execute: str, words: str) -> None:
    refused(both(execute=execute), words)


@pytest.mark.parametrize(("returned", "words"), OUTCOMES)
def test_an_outcome_that_cannot_be_one_is_refused(returned: str, words: str) -> None:
    refused(both(execute=f"def execute(self, command: Rename) -> {returned}: ..."), words)


@pytest.mark.parametrize(("apply", "words"), APPLIES)
def test_an_apply_that_no_worker_could_call_is_refused(apply: str, words: str) -> None:
    refused(both(apply=apply), words)


@pytest.mark.parametrize(("fields", "words"), STATES)
def test_a_state_that_cannot_be_one_is_refused(fields: str, words: str) -> None:
    refused(both(fields=fields), words)


@pytest.mark.parametrize("bases", ["Aggregate, Generic[T]", "Aggregate, frozen=False"])
def test_a_class_that_cannot_be_an_aggregate_is_refused(bases: str) -> None:
    refused(both(), "User is generic|User can be changed", bases=bases)


def test_a_message_that_can_be_changed_is_refused() -> None:
    refused(both(), "Loose can be changed", before="class Loose(Event, frozen=False):\n    pass")


def test_two_types_of_one_wire_name_are_refused() -> None:
    before = "class Old(Event, wire_name='Renamed'):\n    pass"
    refused(
        both(apply="def apply(self, event: Renamed | Old) -> Self: ..."), "two types called 'Renamed'", before=before
    )


def test_a_class_that_only_type_checkers_see_is_refused_naming_it() -> None:
    body = both(execute="def execute(self, command: Late) -> Renamed: ...")
    refused(
        body, "The annotation 'Late' of User.execute cannot be resolved. Define or import it at the top", future=True
    )


def test_a_class_within_a_function_cannot_be_found_by_a_string() -> None:
    class Hidden:
        pass

    refused(
        both(execute="def execute(self, command: 'Hidden') -> Renamed: ..."), "The annotation 'Hidden' of User.execute"
    )
    refused(both(execute="def execute(self, command: 'Rename |') -> Renamed: ..."), "cannot be resolved")
    refused(both(execute="def execute(self, command: 'msgspec.Rename') -> Renamed: ..."), "cannot be resolved")


@pytest.mark.parametrize("future", [False, True])
@pytest.mark.parametrize(
    ("execute", "apply"),
    [
        (EXECUTE, APPLY),
        ("def execute(self, command: 'Rename') -> 'Renamed': ...", APPLY),
        ("def execute(self, command: Wish) -> Result: ...", "def apply(self, event: Fact) -> Self: ..."),
        (
            "def execute(self, command: Bound) -> Result: ...",
            "def apply(self, event: Renamed | Cleared) -> 'User': ...",
        ),
        ("def execute(self, command: Union[Rename, Clear]) -> Optional[Renamed]: ...", APPLY),
        ("def execute(self, command: Annotated[Rename, 1]) -> Annotated[Renamed, 2]: ...", APPLY),
        ("def execute(self, command: Rename, meta: Meta) -> tuple[()] | tuple[Renamed, ...]: ...", APPLY),
        ("def execute(self, command: Rename, meta) -> None: ...", "def apply(self, event: Renamed): ..."),
        (
            "def execute(self, command: Rename, /, meta: Meta) -> Renamed: ...",
            "def apply(self, event: Renamed, /) -> Self: ...",
        ),
        ("class Grow(Command): pass\ndef execute(self, command: Grow) -> Renamed: ...", APPLY),
        (EXECUTE, "def apply(self, event: Renamed | Cleared) -> Self: ..."),
    ],
)
def test_what_can_mean_something_is_taken(execute: str, apply: str, *, future: bool) -> None:
    before = (
        "Wish: TypeAlias = Rename | Clear\nFact: TypeAlias = 'Renamed | Cleared'\nResult = Optional[Renamed]\n"
        "Bound = TypeVar('Bound', Rename, Clear)"
    )
    assert contract_of(declare(both(execute, apply), before=before, future=future)).events


def test_a_type_statement_is_opened() -> None:
    before = "from typing_extensions import TypeAliasType\nWish = TypeAliasType('Wish', Rename | Clear)"
    user = declare(both("def execute(self, command: Wish) -> Renamed: ..."), before=before)
    assert len(contract_of(user).commands) == 2


def test_an_aggregate_may_inherit_from_another() -> None:
    admin = declare("level: int = 0\ndef execute(self, command: Rename | Clear) -> Renamed: ...", bases="Other")
    assert [command.__name__ for command in contract_of(admin).commands] == ["Rename", "Clear"]
    assert [event.__name__ for event in contract_of(admin).events] == ["Renamed"]
    assert admin.__struct_fields__ == ("level",)  # type: ignore[attr-defined]
    refused(
        "level: int = 0",
        "User.apply returns Base, and",
        bases="Base",
        before=f"""
class Base(Aggregate):
    {EXECUTE}
    def apply(self, event: Renamed) -> 'Base': ...
""",
    )
