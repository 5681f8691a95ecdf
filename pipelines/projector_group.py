"""Groups of projectors: which tables a projector feeds, where several feed different ones on one server."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from magnetar.schemas import SettingsError

from .pipeline import Pipeline
from .targets import target_of, targets_of

_KEY_DIGITS: Final = 8


class Group(NamedTuple):
    """Some of a pipeline's tables. Projectors that were told the same share their partitions among themselves."""

    tables: frozenset[str]
    """Names of targets: an aggregate's means its mirror."""
    aggregates: tuple[str, ...]
    """Those whose events the tables take, other contexts' among them."""
    key: str
    """What the log tells the group by; empty for the one that was told nothing."""


def group_of(pipeline: Pipeline, only: Sequence[str] = (), without: Sequence[str] = ()) -> Group:
    """The tables that are named, or all `without` those that are named: one of the two, or neither.

    Raises SettingsError for a name that no table has, for both at once, and if nothing is left.
    """
    targets = targets_of(pipeline)
    if only and without:
        raise SettingsError("--table and --without-table were both given.", cure="Leave one of them out.")
    for name in (*only, *without):
        target_of(pipeline, name)
    tables = frozenset(only) or frozenset(targets) - frozenset(without)
    if not tables:
        raise SettingsError(
            f"Nothing is left to feed: {pipeline.name!r} has no other tables.", cure="Name fewer in --without-table."
        )
    taken = {aggregate for name in tables for aggregate in targets[name].aggregates}
    return Group(tables, tuple(sorted(taken)), _key(only, without))


def _key(only: Sequence[str], without: Sequence[str]) -> str:
    """By what was said, and not by what it comes to: a new projection must not part old from new projectors."""
    if not only and not without:
        return ""
    said = "\n".join([*sorted({f"+{name}" for name in only}), *sorted({f"-{name}" for name in without})])
    return hashlib.sha256(said.encode()).hexdigest()[:_KEY_DIGITS]
