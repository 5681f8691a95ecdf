"""The domain: a user, who alone may change his name and his e-mail address."""

from typing import Final, Self, TypeAlias

from magnetar import Aggregate, Command, Event, Meta, Rejection

NAME_LENGTH_MIN: Final = 4
NAME_LENGTH_MAX: Final = 8


class ChangeName(Command):
    """Give the user another name."""

    name: str


class ChangeEmail(Command):
    """Give the user another e-mail address."""

    email: str


class NameChanged(Event):
    """The user has another name."""

    name: str


class EmailChanged(Event):
    """The user has another e-mail address."""

    email: str


class NotAllowed(Rejection):
    """Only the user himself may do this."""


class EmptyUsername(Rejection):
    """A name cannot be empty."""


class TooShortUsername(Rejection):
    """A name has so many characters at least, and so many at most."""

    minimum: int
    maximum: int


class EmptyEmail(Rejection):
    """An e-mail address cannot be empty."""


UserCommand: TypeAlias = ChangeName | ChangeEmail
UserEvent: TypeAlias = NameChanged | EmailChanged
UserRejection: TypeAlias = NotAllowed | EmptyUsername | TooShortUsername | EmptyEmail


class User(Aggregate):
    """A user. His id is what he signs in with: it is the actor of what he asks for."""

    name: str = ""
    email: str = ""

    def execute(self, command: UserCommand, meta: Meta) -> UserEvent | UserRejection:
        """Check who asks before what he asks for."""
        match command:
            case _ if meta.actor != meta.id:
                return NotAllowed()
            case ChangeName(name=""):
                return EmptyUsername()
            case ChangeName(name) if not NAME_LENGTH_MIN <= len(name) <= NAME_LENGTH_MAX:
                return TooShortUsername(NAME_LENGTH_MIN, NAME_LENGTH_MAX)
            case ChangeName(name):
                return NameChanged(name)
            case ChangeEmail(email=""):
                return EmptyEmail()
            case ChangeEmail(email):
                return EmailChanged(email)

    def apply(self, event: UserEvent) -> Self:
        """Remember the last of each."""
        match event:
            case NameChanged(name):
                return self.replace(name=name)
            case EmailChanged(email):
                return self.replace(email=email)
