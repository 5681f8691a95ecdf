"""How far the workers are on a Pulsar, and who may write: the broker's statistics, made into what people ask for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from magnetar.schemas import MessageId

from ..log import Backlog, Ownership, Reached, Reader
from .pulsar_admin import LAST_OF_BATCH

_COUNTED_MAX: Final = 1000
"""The broker counts stored batches. So many messages are counted one by one; beyond, their number is estimated."""

_READ_SECONDS: Final = 1.0
_REST_SECONDS: Final = 0.05
"""How long the rest of a batch is waited for, whose first message is there."""

_TOKEN_DIGITS: Final = 16
"""A producer is called as its worker, with a random number behind it."""


def producer_name(name: str, token: str) -> str:
    """What a worker's producer is called: each has another name, or the broker would take it for the one before."""
    return f"{name}-{token:0>{_TOKEN_DIGITS}}"


def backlog_of(
    stats: dict[str, Any], internal: dict[str, Any], subscription: str, reader: Callable[[MessageId | None], Reader]
) -> Backlog:
    """One partition's: who is active, how far, and how many messages stand behind that."""
    found = stats.get("subscriptions", {}).get(subscription)
    if found is None:
        return Backlog(None, None, _count(int(internal.get("numberOfEntries", 0)), None, reader))
    acknowledged = _place(internal["cursors"][subscription]["markDeletePosition"])
    waiting = _count(int(found["msgBacklog"]), acknowledged, reader)
    return Backlog(found.get("activeConsumerName") or None, acknowledged, waiting)


def reached(internal: dict[str, Any], subscription: str) -> Reached:
    """How far one partition is stored and acknowledged, both to whole batches."""
    cursor = internal.get("cursors", {}).get(subscription, {})
    return Reached(
        _place(internal.get("lastConfirmedEntry", "-1:-1")), _place(cursor.get("markDeletePosition", "-1:-1"))
    )


def owner_of(stats: dict[str, Any]) -> Ownership | None:
    """The one producer that may write to a partition of an event topic, if it is connected."""
    for publisher in stats.get("publishers", ()):
        if publisher["accessMode"].startswith("Exclusive"):
            since = datetime.fromisoformat(publisher["connectedSince"])
            name = publisher["producerName"][: -_TOKEN_DIGITS - 1]
            return Ownership(name, int(since.timestamp() * 1000))
    return None


def _place(mark_delete: str) -> MessageId | None:
    """Where the acknowledged end; `ledger:-1` stands before all of the ledger."""
    ledger, _, entry = mark_delete.partition(":")
    if int(ledger) < 0:
        return None
    return MessageId(int(ledger), int(entry), LAST_OF_BATCH if int(entry) >= 0 else -1)


def _count(entries: int, after: MessageId | None, open_reader: Callable[[MessageId | None], Reader]) -> int:
    """How many messages there are in so many stored entries."""
    if not entries:
        return 0
    reader, seen, messages = open_reader(after), set[tuple[int, int]](), 0
    try:
        while messages < _COUNTED_MAX:
            wait_seconds = _READ_SECONDS if len(seen) < entries else _REST_SECONDS
            found = reader.read(messages_max=_COUNTED_MAX, timeout_seconds=wait_seconds)
            if not found:
                break
            seen.update((message.id.ledger, message.id.entry) for message in found)
            messages += len(found)
    finally:
        reader.close()
    return round(messages * entries / len(seen)) if len(seen) < entries and seen else max(messages, entries)
