"""Shown tables that stand still for a moment, where several projectors feed them.

So another generation can be shown that has all that a reader has seen.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from magnetar.projections.leased_table import LeasedTable

STILL_SECONDS_MAX: Final = 4.0
"""Less than those from whom a partition was taken leave it alone (feeding.RETRY_SECONDS): nobody takes it back before
the views are swapped, or else they are not."""

AGAIN_SECONDS: Final = 30.0
"""How long the tables go on after they have stood still for nothing."""


class StandingStill:
    """The leases of all partitions, taken from whoever feeds them: what they insert from now on is refused."""

    def __init__(self, tables: Sequence[tuple[LeasedTable, int]]) -> None:
        """Each with the number of its partitions."""
        self._tables = tables
        nonce = secrets.token_hex(16)
        self._leases = [table.take_all(partitions, nonce) for table, partitions in tables]

    def holds(self) -> bool:
        """Whether nobody has taken one since."""
        return [table.newest_leases() for table, _ in self._tables] == self._leases
