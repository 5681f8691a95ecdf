"""The HTTP interface: FastAPI in front of the pipeline."""

from typing import Annotated, Any, assert_never

from fastapi import FastAPI, Header, Request, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from magnetar import CommandParked, MagnetarError, MessageRefused, OutcomeUnknown, Receipt

from .pipeline import accounts
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
    UserEvent,
    UserRejection,
)

ANSWER_SECONDS = 10.0
app = FastAPI(title="Accounts", lifespan=accounts.lifespan)

Actor = Annotated[str, Header(alias="X-Actor", description="Who asks. A real application takes it from a session.")]
CommandId = Annotated[str | None, Header(alias="Idempotency-Key", description="A UUIDv7: repeats are then safe.")]
ExpectedVersion = Annotated[int | None, Header(alias="If-Match", description="Only if the user is at this version.")]


class NewName(BaseModel):
    """The body of a change of name."""

    name: str


class NewEmail(BaseModel):
    """The body of a change of e-mail address."""

    email: str


@app.put("/users/{id}/name")
async def change_name(
    id: str, body: NewName, actor: Actor, command_id: CommandId = None, expected_version: ExpectedVersion = None
) -> JSONResponse:
    """Give the user another name."""
    return await ask(id, ChangeName(body.name), actor, command_id, expected_version)


@app.put("/users/{id}/email")
async def change_email(
    id: str, body: NewEmail, actor: Actor, command_id: CommandId = None, expected_version: ExpectedVersion = None
) -> JSONResponse:
    """Give the user another e-mail address."""
    return await ask(id, ChangeEmail(body.email), actor, command_id, expected_version)


async def ask(
    id: str, command: UserCommand, actor: str, command_id: str | None, expected_version: int | None
) -> JSONResponse:
    """Let the aggregate decide, and answer with what it decided."""
    receipt = await accounts.client.ask(
        User,
        id,
        command,
        actor=actor,
        command_id=command_id,
        expected_version=expected_version,
        timeout_seconds=ANSWER_SECONDS,
    )
    return answer(receipt)


def answer(receipt: Receipt[UserEvent | UserRejection]) -> JSONResponse:
    """The status for each outcome: a type checker names the one that is forgotten here."""
    outcome = receipt.outcome
    match outcome:
        case NameChanged() | EmailChanged():
            return JSONResponse({"version": receipt.version, "position": receipt.position})
        case NotAllowed():
            return problem(status.HTTP_403_FORBIDDEN, "Only the user himself may do this.")
        case EmptyUsername():
            return problem(status.HTTP_422_UNPROCESSABLE_CONTENT, "A name cannot be empty.")
        case TooShortUsername(minimum, maximum):
            return problem(status.HTTP_422_UNPROCESSABLE_CONTENT, f"A name has {minimum} to {maximum} characters.")
        case EmptyEmail():
            return problem(status.HTTP_422_UNPROCESSABLE_CONTENT, "An e-mail address cannot be empty.")
        case _:
            assert_never(outcome)


@app.exception_handler(OutcomeUnknown)
async def outcome_unknown(_: Request, error: OutcomeUnknown) -> JSONResponse:
    """Nobody answered in time. Repeating is safe with the same id, so the caller gets it."""
    return problem(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        "What became of it is not known yet. Repeat it with this id as Idempotency-Key.",
        command_id=error.fields["command_id"],
    )


@app.exception_handler(CommandParked)
async def command_parked(_: Request, error: CommandParked) -> JSONResponse:
    """It could not be decided: the user is at another version than the caller thinks, or something else is wrong."""
    is_conflict = error.reason == "version_conflict"
    code = status.HTTP_409_CONFLICT if is_conflict else status.HTTP_422_UNPROCESSABLE_CONTENT
    return problem(code, error.detail, reason=error.reason, position=error.position)


@app.exception_handler(MessageRefused)
async def message_refused(_: Request, error: MessageRefused) -> JSONResponse:
    """It cannot be sent as it is: an id that is none, for example. Nothing was carried out."""
    return problem(status.HTTP_422_UNPROCESSABLE_CONTENT, error.what)


@app.exception_handler(MagnetarError)
async def other_error(_: Request, error: MagnetarError) -> JSONResponse:
    """The rest is not the caller's fault, and none of his business: the log does not answer, its disk is full."""
    if error.retry_is_safe:
        return problem(status.HTTP_503_SERVICE_UNAVAILABLE, "Try again later.")
    return problem(status.HTTP_500_INTERNAL_SERVER_ERROR, "Something is wrong here.")


def problem(code: int, detail: str, **more: Any) -> JSONResponse:
    """An answer that is no success."""
    return JSONResponse({"detail": detail, **more}, code)
