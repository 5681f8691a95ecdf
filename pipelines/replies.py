"""Waiting for replies: who asked what, and the thread that hands each reply to whoever waits for it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Final

from magnetar.schemas import LogUnavailable, MagnetarError, MessageId, MessageRefused, PartitionRefused, Undecodable
from magnetar.schemas.commit import read_command_id

from .log import Entry, Inbox, Log
from .outgoing import Route
from .receipt import CommandParked, Receipt, receipt_of, unknown, unreadable
from .reply import Reply

LOOK_SECONDS: Final = 0.005
"""How long one look for replies lasts. The embedded log looks at its file most often at the beginning of each: every
millisecond or two. That is 3 % of a core, and only while somebody waits."""


class Ask:
    """One command that somebody waits for. Whoever gives up cancels `receipt`."""

    def __init__(self, route: Route, aggregate_id: str, command_id: str, entry: Entry) -> None:
        self.route = route
        self.aggregate_id = aggregate_id
        self.command_id = command_id
        self.entry = entry
        """The message, as it was sent."""
        self.receipt: Future[Receipt[Any]] = Future()
        self.has_turn = False
        self.stored_at: float | None = None
        """When the log confirmed the command (monotonic seconds), or its last repeat."""
        self.end: MessageId | None = None
        """Where the command's partition ended at a moment when the command was stored already."""
        self.was_repeated = False

    def is_like(self, other: Ask) -> bool:
        """Whether both are of the same aggregate, so that one reply can answer them."""
        return self.route is other.route and self.aggregate_id == other.aggregate_id


class Replies:
    """The inbox of one client, opened at the first ask, and read only while somebody waits. Safe between threads."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._asks: dict[str, list[Ask]] = {}
        self._wanted = threading.Event()
        """Set while somebody waits; and when this is closed, so that the thread ends."""
        self._inbox: Inbox | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether the address is known without waiting for the log."""
        return self._inbox is not None

    def address(self) -> str:
        """Where replies come in. Opens the inbox if it is not, which on Pulsar takes a moment."""
        with self._lock:
            if self._inbox is None:
                self._inbox = self._log.inbox()
                self._thread = threading.Thread(
                    target=self._listen, args=(self._inbox,), name="magnetar-replies", daemon=True
                )
                self._thread.start()
            return self._inbox.address

    def expect(self, ask: Ask) -> None:
        """Begin to wait, before the command is sent. The same command may be asked twice at a time: both are answered.

        Raises MessageRefused if a command to another aggregate is being asked under this id.
        """
        with self._lock:
            others = self._asks.setdefault(ask.command_id, [])
            if others and not others[0].is_like(ask):
                raise MessageRefused(
                    f"Another command is being asked under the id {ask.command_id}.", cure="Give each an id of its own."
                )
            others.append(ask)
            self._wanted.set()

    def forget(self, ask: Ask) -> bool:
        """Wait no longer; returns whether anybody did."""
        with self._lock:
            asks = self._asks.get(ask.command_id, [])
            if ask not in asks:
                return False
            asks.remove(ask)
            if not asks:
                del self._asks[ask.command_id]
            self._rest_if_nobody_waits()
            return True

    def late(self, stored_before: float) -> list[Ask]:
        """The asks that still wait, and whose commands were stored before this time (monotonic seconds)."""
        with self._lock:
            waiting = [ask for asks in self._asks.values() for ask in asks]
        return [ask for ask in waiting if ask.stored_at is not None and ask.stored_at < stored_before]

    def fail(self, ask: Ask, error: BaseException) -> None:
        """End an ask with an error, if it still waits."""
        if self.forget(ask) and ask.receipt.set_running_or_notify_cancel():
            ask.receipt.set_exception(error)

    def close(self) -> None:
        """End all asks with OutcomeUnknown, and let go of the inbox."""
        self._fail_all("the client was closed", closing=True)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()  # the log's files must not be closed under its hands

    def _fail_all(self, why: str, *, closing: bool = False) -> None:
        with self._lock:
            asks, self._asks = self._asks, {}
            self._closed = self._closed or closing
            self._rest_if_nobody_waits()
        for ask in (ask for several in asks.values() for ask in several):
            if ask.receipt.set_running_or_notify_cancel():
                ask.receipt.set_exception(unknown(ask.command_id, why))

    def _rest_if_nobody_waits(self) -> None:
        if self._closed:
            self._wanted.set()
        elif not self._asks:
            self._wanted.clear()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _listen(self, inbox: Inbox) -> None:
        """Read replies until closed. If the inbox is lost, all asks end, and the next one opens another."""
        try:
            while self._wanted.wait() and not self._closed:
                for payload in inbox.receive(timeout_seconds=LOOK_SECONDS):
                    self._settle(payload)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may be left waiting
            with self._lock:
                self._inbox = None
            what = error.what.rstrip(".") if isinstance(error, MagnetarError) else repr(error)
            self._fail_all(f"replies do not come in any more ({what})")
        finally:
            inbox.close()

    def _settle(self, payload: bytes) -> None:
        """Hand a reply to whoever waits for it; one that nobody waits for, or that cannot be read, is dropped."""
        try:
            reply = Reply.decode(payload)
            command_id = read_command_id(reply.commit)
        except MagnetarError:
            return
        with self._lock:
            asks = self._asks.pop(command_id, [])
            self._rest_if_nobody_waits()
        for ask in asks:
            if ask.receipt.set_running_or_notify_cancel():
                _answer(ask, reply)


def _answer(ask: Ask, reply: Reply) -> None:
    route = ask.route
    try:
        commit = route.codecs.of(reply.schema).decode(reply.commit)
        ask.receipt.set_result(receipt_of(route.context, route.aggregate, reply.partition, commit))
    except CommandParked as error:
        lost = ask.was_repeated and error.reason == "expired"  # decided before, and forgotten since
        ask.receipt.set_exception(unknown(ask.command_id, "its answer was lost") if lost else error)
    except (PartitionRefused, Undecodable) as error:
        ask.receipt.set_exception(unreadable(ask.command_id, error))
    except LogUnavailable as error:  # its schema is not to be had: it is decided all the same
        ask.receipt.set_exception(unknown(ask.command_id, f"its answer cannot be read ({error.what.rstrip('.')})"))
    except Exception as error:  # noqa: BLE001 - the asker's to see, and not this thread's to end of
        ask.receipt.set_exception(error)
