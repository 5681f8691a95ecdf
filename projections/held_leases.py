"""Statements that change nothing unless leases are held."""

from __future__ import annotations

from typing import Final, NamedTuple

from magnetar.schemas import StoreUnavailable

from .columns import literal

_LEASE_LOST: Final = "magnetar: the lease is lost"


class Held(NamedTuple):
    """What a statement says of the leases that it needs. Whoever takes one of them ends it, or waits for its end."""

    mark: str
    """Stands in the statement: whoever takes a lease looks for it."""
    condition: str
    """Stands in its WHERE: an error unless the leases are held when it starts."""


def held(found: str, wanted: str) -> str:
    """The condition that a query of leases finds what is wanted."""
    return f"throwIf(({found}) != {wanted}, {literal(_LEASE_LOST)}) = 0"


def is_lease_lost(error: StoreUnavailable) -> bool:
    """Whether it was such a condition that ClickHouse refused a statement for."""
    return _LEASE_LOST in error.what
