"""Between Pulsar's client and the port: messages, places and errors."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pulsar
from magnetar.schemas import AccessDenied, LogUnavailable, MessageId, SettingsError

from ..log import Message


def message_of(received: Any) -> tuple[Message, Any]:
    """A message as the port gives it, and the client's own id of it, which an acknowledgement needs.

    The public accessor of the schema's version fails from version 128 on.
    """
    own = received.message_id()
    place = MessageId(own.ledger_id(), own.entry_id(), own.batch_index())
    number = received._message.int_schema_version()  # noqa: SLF001
    return Message(place, received.partition_key(), received.data(), received.publish_timestamp(), number), own


@contextmanager
def translated(doing: str, *, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Generator[None]:
    """Raise the client's errors as the port's, all but some."""
    try:
        yield
    except but:
        raise
    except pulsar.AuthorizationError as error:
        raise AccessDenied(
            f"Pulsar does not allow this role {doing}.",
            cure="`magnetar plan MODULE` shows the rights that are missing, if the roles are set.",
        ) from error
    except pulsar.IncompatibleSchema as error:
        raise SettingsError(
            f"Pulsar refused {doing}: the topic does not take this schema.",
            cure="Register it first: provisioning says why it is not compatible.",
        ) from error
    except pulsar.Timeout as error:
        raise LogUnavailable(f"Pulsar did not answer in time while {doing}.", cure="Does the broker run?") from error
    except pulsar.PulsarException as error:
        raise LogUnavailable(
            f"Pulsar refused {doing}: {type(error).__name__}.",
            cure="Check that the broker runs, that the topic exists, and the rights to it.",
        ) from error


class PulsarReader:
    """Follows a partition."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.closed = False

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages; waits for the first only. Raises LogUnavailable if the reader is closed."""
        messages: list[Message] = []
        wait_ms = max(1, int(timeout_seconds * 1000))
        try:
            while len(messages) < messages_max:
                messages.append(message_of(self._reader.read_next(wait_ms))[0])
                wait_ms = 0
        except pulsar.Timeout:
            pass
        except pulsar.PulsarException as error:
            if not messages:  # what has come is given first: the reader would not give it again
                raise LogUnavailable(f"Pulsar closed a reader: {type(error).__name__}.") from error
        return messages

    def close(self) -> None:
        """Let go."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self._reader.close()
