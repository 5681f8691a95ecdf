"""An ask on the command line: whoever waits is told if nobody decides; the receipt, for people and programs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any, Final

import msgspec
from magnetar.schemas import Command, Rejection, wire_name

from .client import wait_for
from .connection import Connection
from .outgoing import Details
from .receipt import Receipt

SOON_SECONDS: Final = 2.0
"""How long nothing is said. While a `magnetar dev` lives it is never said: its worker may just be starting."""


def ask(
    connection: Connection,
    aggregate: type[Any],
    id: str,
    command: Command,
    details: Details,
    *,
    timeout_seconds: float,
    say: Callable[[str], None],
) -> Receipt[Any]:
    """As `SyncClient.ask`; if nobody is there to decide, that is said while it waits."""
    command_id, receipt = connection.ask(aggregate, id, command, details, timeout_seconds)
    rest = timeout_seconds
    if rest > SOON_SECONDS and not wait([receipt], timeout=SOON_SECONDS).done:
        rest -= SOON_SECONDS
        if connection.nobody_decides(aggregate, id) and not connection.is_coming:
            say(
                f"{connection.who_is_missing(aggregate, id)} yet. The command {command_id} is stored, and is "
                "decided as soon as one runs, whether you wait for it or not."
            )
    late = partial(connection.why_no_answer, aggregate, id, timeout_seconds)
    return wait_for(command_id, receipt, rest, late)


def describe(receipt: Receipt[Any]) -> tuple[dict[str, Any], str]:
    """The receipt as fields for `--json`, and as one line."""
    outcome = receipt.outcome
    values = outcome if isinstance(outcome, tuple) else () if outcome is None else (outcome,)
    kind = "nothing" if not values else "rejected" if isinstance(values[0], Rejection) else "accepted"
    parts = [{"type": wire_name(type(value)), **msgspec.to_builtins(value)} for value in values]
    answer = {"outcome": kind, "values": parts, "version": receipt.version, "position": str(receipt.position)}
    shown = ", ".join(repr(value) for value in values) or "nothing to do"
    return answer, f"{kind}: {shown}  (version {receipt.version}, {receipt.position})"
