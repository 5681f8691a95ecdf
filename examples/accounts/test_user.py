"""The domain, without anything running."""

import pytest

from magnetar.testing import given

from .user import (
    ChangeEmail,
    ChangeName,
    EmailChanged,
    EmptyEmail,
    EmptyUsername,
    NameChanged,
    NotAllowed,
    TooShortUsername,
    User,
    UserCommand,
)


def test_a_user_changes_his_own_name() -> None:
    given(User, id="anna").when(ChangeName("Anna"), actor="anna").then(NameChanged("Anna"))


def test_a_name_can_be_changed_again() -> None:
    given(User, NameChanged("Anna"), id="anna").when(ChangeName("Annika"), actor="anna").then(NameChanged("Annika"))


def test_a_user_changes_his_own_email() -> None:
    given(User, NameChanged("Anna"), EmailChanged("a@example.org"), id="anna").when(
        ChangeEmail("anna@example.org"), actor="anna"
    ).then(EmailChanged("anna@example.org"))


@pytest.mark.parametrize("actor", ["bert", None])
@pytest.mark.parametrize("command", [ChangeName("Anna"), ChangeEmail("a@example.org"), ChangeName("")])
def test_nobody_else_may(command: UserCommand, actor: str | None) -> None:
    given(User, id="anna").when(command, actor=actor).then(NotAllowed())


def test_a_name_is_not_empty() -> None:
    given(User, id="anna").when(ChangeName(""), actor="anna").then(EmptyUsername())


@pytest.mark.parametrize("name", ["Ann", "Annemarie"])
def test_a_name_has_four_to_eight_characters(name: str) -> None:
    given(User, id="anna").when(ChangeName(name), actor="anna").then(TooShortUsername(4, 8))


def test_an_email_is_not_empty() -> None:
    given(User, id="anna").when(ChangeEmail(""), actor="anna").then(EmptyEmail())
