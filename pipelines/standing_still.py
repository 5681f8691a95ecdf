"""Shown tables that stand still for a moment, where several projectors feed them.

So another generation can be shown that has all that a reader has seen. docs/adr/0013 has the argument.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from magnetar.projections.held_leases import Held
from magnetar.projections.leased_table import LeasedTable

STILL_SECONDS_MAX: Final = 4.0
"""How long the wanted generation may take to catch up meanwhile. Those from whom a partition was taken leave it alone
for longer (feeding.RETRY_SECONDS): as a rule nobody takes it back before the views are swapped."""

AGAIN_SECONDS: Final = 30.0
"""How long the tables go on after they have stood still for nothing."""


def stand_still(tables: Sequence[tuple[LeasedTable, int]]) -> list[Held]:
    """Take the leases of all partitions, whose number stands beside each table, from whoever feeds them: what they
    insert from now on is refused, until they have taken a lease again. Returns what a statement says that needs all of
    these leases."""
    nonce = secrets.token_hex(16)
    return [table.held_all(table.take_all(partitions, nonce)) for table, partitions in tables]
