"""Between Pulsar's client and the port: messages, places and errors."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pulsar
from magnetar.schemas import AccessDenied, LogUnavailable, MessageId, SettingsError

from ..log import Message, Run

_BATCH_SIZE: Final = 6
"""The number of a field."""


def message_of(received: Any) -> tuple[Message, Any]:
    """A message as the port gives it, and the client's own id of it, which an acknowledgement needs."""
    own = received.message_id()
    key, published_at_ms = received.partition_key(), received.publish_timestamp()
    return Message(place_of(own), key, received.data(), published_at_ms, schema_of(received)), own


def place_of(own: Any) -> MessageId:
    """The place that a client's id names."""
    return MessageId(own.ledger_id(), own.entry_id(), own.batch_index())


def schema_of(received: Any) -> int:
    """The number of a message's schema. The public accessor fails from version 128 on."""
    number: int = received._message.int_schema_version()  # noqa: SLF001
    return number


def follows(last: tuple[Message, Any], id: MessageId) -> bool:
    """Whether nothing can stand between a message and the place of another one. No, where that cannot be told."""
    before, own = last
    ledger, entry, batch = before.id
    if id.ledger != ledger:
        return False
    if id.entry == entry:
        return id.batch == batch + 1
    return id.entry == entry + 1 and id.batch <= 0 and (batch < 0 or batch + 1 == _batch_size(own))


def _batch_size(own: Any) -> int:
    """How many messages the batch of a message has, which the client says nowhere but in the bytes of its id.

    They are Pulsar's protobuf message MessageIdData; all of its fields up to the batch's size are varints.
    """
    data: bytes = own.serialize()
    at = 0
    while at < len(data):
        field, value, shift = data[at] >> 3, 0, 0
        at += 1
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        if field == _BATCH_SIZE:
            return value
    return 0


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
        self._held: Any = None
        """A message that was received and not given: it ended a run."""
        self.closed = False

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages; waits for the first only. Raises LogUnavailable if the reader is closed."""
        messages: list[Message] = []
        for received in self._received(timeout_seconds):
            messages.append(message_of(received)[0])
            if len(messages) == messages_max:
                break
        return messages

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        """Return the payloads of the next messages of one schema; waits for the first only."""
        payloads: list[bytes] = []
        schema, last = None, None
        for received in self._received(timeout_seconds):
            number = schema_of(received)
            if payloads and number != schema:
                self._held = received
                break
            schema, last = number, received
            payloads.append(received.data())
            if len(payloads) == messages_max:
                break
        return None if last is None or schema is None else Run(payloads, schema, place_of(last.message_id()))

    def _received(self, timeout_seconds: float) -> Iterator[Any]:
        """What comes, and first what was held back; waits for the first only."""
        wait_ms = max(1, int(timeout_seconds * 1000))
        if self._held is not None:
            held, self._held, wait_ms = self._held, None, 0
            yield held
        try:
            while True:
                yield self._reader.read_next(wait_ms)
                wait_ms = 0
        except pulsar.Timeout:
            return
        except pulsar.PulsarException as error:
            if wait_ms:  # what has come is given first: the reader would not give it again
                raise LogUnavailable(f"Pulsar closed a reader: {type(error).__name__}.") from error

    def close(self) -> None:
        """Let go."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self._reader.close()
