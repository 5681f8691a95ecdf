"""A receipt, as people and programs read it on the command line."""

from __future__ import annotations

from typing import Any

import msgspec
from magnetar.schemas import Rejection, wire_name

from .receipt import Receipt


def describe(receipt: Receipt[Any]) -> tuple[dict[str, Any], str]:
    """The receipt as fields for `--json`, and as one line."""
    outcome = receipt.outcome
    values = outcome if isinstance(outcome, tuple) else () if outcome is None else (outcome,)
    kind = "nothing" if not values else "rejected" if isinstance(values[0], Rejection) else "accepted"
    parts = [{"type": wire_name(type(value)), **msgspec.to_builtins(value)} for value in values]
    answer = {"outcome": kind, "values": parts, "version": receipt.version, "position": str(receipt.position)}
    shown = ", ".join(repr(value) for value in values) or "nothing to do"
    return answer, f"{kind}: {shown}  (version {receipt.version}, {receipt.position})"
