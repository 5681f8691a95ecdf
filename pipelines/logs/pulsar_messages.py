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

_BACKLOG_MESSAGES: Final = 16
"""From so many at once on it is a backlog."""

READ_BYTES_MAX: Final = 64 * 1024 * 1024
"""What one read brings into memory at most, give or take a message."""

_BACKLOG_MS: Final = 10
"""How long a run waits for the next message of a backlog: the client's queue is empty for a moment where messages are
taken faster than the broker sends them, and a range cut off there costs as much as a full one."""

_NO_TEXT: Final = ""
"""A key that is no text: no aggregate has this id, so that a command under it is parked."""

_make: Any = tuple.__new__  # a named tuple's own constructor takes three times as long


def message_of(received: Any) -> tuple[Message, Any]:
    """A message as the port gives it, and the client's own id of it, which an acknowledgement needs."""
    own = received.message_id()
    return _message(received._message, own), own  # noqa: SLF001 - the public schema_version() fails from 128 on


def _message(received: Any, own: Any) -> Message:
    """The same of a message without an object of Python's around it."""
    place = _make(MessageId, (own.ledger_id(), own.entry_id(), own.batch_index()))
    try:
        key = received.partition_key()
    except UnicodeDecodeError:
        key = _NO_TEXT
    published_at_ms = received.publish_timestamp()
    message: Message = _make(Message, (place, key, received.data(), published_at_ms, received.int_schema_version()))
    return message


def place_of(own: Any) -> MessageId:
    """The place that a client's id names."""
    return MessageId(own.ledger_id(), own.entry_id(), own.batch_index())


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


_TIMED_OUT: Final = "Does the broker run? One that wants TLS is pulsar+ssl://… in MAGNETAR_BROKER."


@contextmanager
def translated(
    doing: str, *, right: str = "consume", but: type[Exception] | tuple[type[Exception], ...] = ()
) -> Generator[None]:
    """Raise the client's errors as the port's, all but some. `right` is what a role needs for it."""
    try:
        yield
    except but:
        raise
    except pulsar.AuthorizationError as error:
        raise AccessDenied(
            f"Pulsar does not allow this role {doing}: it lacks the right to {right} there.",
            cure="`magnetar plan MODULE` shows the rights that are missing, if the roles are set.",
        ) from error
    except pulsar.IncompatibleSchema as error:
        raise SettingsError(
            f"Pulsar refused {doing}: the topic does not take this schema.",
            cure="Register it first: provisioning says why it is not compatible.",
        ) from error
    except pulsar.TopicNotFound as error:
        raise LogUnavailable(
            f"Pulsar refused {doing}: there is no such topic.",
            cure="The first worker makes a pipeline's topics when it starts, or `magnetar provision MODULE`: try again "
            "then. If they are there, check MAGNETAR_TENANT.",
        ) from error
    except pulsar.Timeout as error:
        raise LogUnavailable(f"Pulsar did not answer in time while {doing}.", cure=_TIMED_OUT) from error
    except pulsar.PulsarException as error:
        raise LogUnavailable(
            f"Pulsar refused {doing}: {type(error).__name__}.",
            cure="Check that the broker runs, that the topic exists, and the rights to it.",
        ) from error


class PulsarReader:
    """Follows a partition."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._read_next = reader._reader.read_next  # noqa: SLF001 - the public one wraps each message
        self._held: Any = None
        """A message that was received and not given: it ended a run."""
        self.closed = False

    def read(self, *, messages_max: int, timeout_seconds: float) -> Sequence[Message]:
        """Return the next messages; waits for the first only. Raises LogUnavailable if the reader is closed."""
        messages: list[Message] = []
        left = READ_BYTES_MAX
        for received in self._received(timeout_seconds):
            messages.append(_message(received, received.message_id()))
            left -= len(messages[-1].payload)
            if len(messages) == messages_max or left <= 0:
                break
        return messages

    def read_run(self, *, messages_max: int, timeout_seconds: float) -> Run | None:
        """Return the payloads of the next messages of one schema; waits for the first, and a moment where many come."""
        payloads: list[bytes] = []
        schema, last, left = None, None, READ_BYTES_MAX
        for received in self._received(timeout_seconds, backlog_ms=_BACKLOG_MS):
            number = received.int_schema_version()
            if payloads and number != schema:
                self._held = received
                break
            payload = received.data()
            payloads.append(payload)
            schema, last = number, received
            left -= len(payload)
            if len(payloads) == messages_max or left <= 0:
                break
        return None if last is None or schema is None else Run(payloads, schema, place_of(last.message_id()))

    def _received(self, timeout_seconds: float, backlog_ms: int = 0) -> Iterator[Any]:
        """What comes, and first what was held back. Waits for the first, and so long for each where it is a backlog."""
        read_next = self._read_next
        wait_ms = max(1, int(timeout_seconds * 1000))
        given = 0
        if self._held is not None:
            held, self._held, given = self._held, None, 1
            yield held
        try:
            while True:
                yield read_next(wait_ms if not given else 0 if given < _BACKLOG_MESSAGES else backlog_ms)
                given += 1
        except pulsar.Timeout:
            return
        except pulsar.PulsarException as error:
            if not given:  # what has come is given first: the reader would not give it again
                raise LogUnavailable(f"Pulsar closed a reader: {type(error).__name__}.") from error

    def close(self) -> None:
        """Let go."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(pulsar.PulsarException):
            self._reader.close()
