"""What a projection's declaration is, in a few letters: a table that was filled under another one is rebuilt."""

from __future__ import annotations

from typing import Any

from .contracts import contract_of
from .declarations import Sql
from .incremental import plan_of


def fingerprint_of(projection: type[Any]) -> str:
    """Of a projection that has a table."""
    if issubclass(projection, Sql):
        return plan_of(projection.__name__, projection.select).fingerprint
    return contract_of(projection).fingerprint(projection.revision)
