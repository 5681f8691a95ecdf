"""What an aggregate declares, what is refused when it is declared, and the test kit."""

from datetime import datetime
from typing import Any, Self

import pytest
from magnetar.aggregates import Aggregate, contract_of, given
from magnetar.schemas import Command, DeclarationError, Event, Meta, Rejection, State


class ChangeName(Command):
    name: str


class Clear(Command):
    pass


class NameChanged(Event):
    name: str


class Cleared(Event):
    pass


class NotAllowed(Rejection):
    pass


class TooShort(Rejection):
    minimum: int


class User(Aggregate):
    name: str = ""

    def execute(
        self, command: ChangeName | Clear, meta: Meta
    ) -> NameChanged | tuple[NameChanged, Cleared] | NotAllowed | TooShort | None:
        match command:
            case _ if meta.actor != meta.id:
                return NotAllowed()
            case ChangeName(name) if len(name) < 4:
                return TooShort(4)
            case ChangeName(name) if name == self.name:
                return None
            case ChangeName(name):
                return NameChanged(name)
            case Clear():
                return NameChanged(""), Cleared()

    def apply(self, event: NameChanged | Cleared) -> Self:
        match event:
            case NameChanged(name):
                return self.replace(name=name)
            case Cleared():
                return self


def test_the_annotations_declare_the_contract() -> None:
    contract = contract_of(User)
    assert contract.commands == (ChangeName, Clear)
    assert contract.events == (NameChanged, Cleared)
    assert contract.rejections == (NotAllowed, TooShort)
    assert contract.takes_meta


def test_given_when_then() -> None:
    given(User, id="u").when(ChangeName("anna"), actor="u").then(NameChanged("anna"))
    given(User, NameChanged("anna"), id="u").when(ChangeName("anna"), actor="u").then(None)
    given(User, id="u").when(ChangeName("x"), actor="u").then(TooShort(4))
    given(User, id="u").when(ChangeName("anna"), actor="v").then(NotAllowed())
    given(User, id="u").when(Clear(), actor="u").then((NameChanged(""), Cleared()))


def test_then_says_what_was_decided_and_what_was_expected() -> None:
    with pytest.raises(AssertionError, match=r"(?s)expected: TooShort\(minimum=4\).*got:      NotAllowed\(\)"):
        given(User, id="u").when(ChangeName("x")).then(TooShort(4))


def test_the_kit_catches_a_state_that_replace_broke() -> None:
    class Broken(Aggregate):
        count: int = 0

        def execute(self, command: Clear) -> Cleared:
            return Cleared()

        def apply(self, event: Cleared) -> Self:
            wrong: Any = "one"
            return self.replace(count=wrong)

    with pytest.raises(AssertionError, match="Expected `int`"):
        given(Broken, Cleared())
    with pytest.raises(AssertionError, match="Expected `int`"):
        given(Broken).when(Clear())


def test_messages_and_states_cannot_be_changed() -> None:
    event: Any = NameChanged("x")
    with pytest.raises(AttributeError):
        event.name = "y"


def test_an_emitted_event_that_apply_lacks_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"returns Cleared, which .*apply lacks"):

        class Lacking(Aggregate):
            def execute(self, command: Clear) -> Cleared:
                return Cleared()

            def apply(self, event: NameChanged) -> Self:
                return self


def test_an_aggregate_without_execute_is_refused() -> None:
    with pytest.raises(DeclarationError, match="has no method `execute`"):

        class Mute(Aggregate):
            def apply(self, event: NameChanged) -> Self:
                return self


def test_a_state_that_could_be_changed_in_place_is_refused_with_the_cure() -> None:
    with pytest.raises(DeclarationError, match=r"Mutable\.names is a list.*tuple"):

        class Mutable(Aggregate):
            names: list[str] = []  # noqa: RUF012 - what is refused

            def execute(self, command: Clear) -> Cleared:
                return Cleared()

            def apply(self, event: Cleared) -> Self:
                return self

    with pytest.raises(DeclarationError, match=r"Waiting\.since is a dict"):

        class Waiting(State):
            since: dict[str, datetime]


def test_an_aggregate_without_a_seed_is_refused() -> None:
    with pytest.raises(DeclarationError, match="has no seed"):

        class Seedless(Aggregate):
            name: str

            def execute(self, command: Clear) -> Cleared:
                return Cleared()

            def apply(self, event: Cleared) -> Self:
                return self


def test_an_outcome_that_is_no_outcome_is_refused() -> None:
    with pytest.raises(DeclarationError, match="returns str"):

        class Chatty(Aggregate):
            def execute(self, command: Clear) -> Cleared | str:
                return "hello"

            def apply(self, event: Cleared) -> Self:
                return self


def test_a_field_that_has_no_avro_type_is_refused_naming_class_and_field() -> None:
    with pytest.raises(DeclarationError, match=r"Odd\.what has the type complex"):

        class Odd(Event):
            what: complex
