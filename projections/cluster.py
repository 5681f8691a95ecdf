"""The statements that make our tables, as a replicated cluster takes them. They are generated, and parsed in tests; no
cluster was ever asked: what is promised of one server is not promised of a cluster.
"""

from __future__ import annotations

import re
from typing import Any, Final

from .columns import quoted

INSERT_SETTINGS: Final[dict[str, Any]] = {
    "insert_quorum": "auto",
    "insert_quorum_parallel": 0,
    "distributed_ddl_output_mode": "throw",
    "alter_sync": 2,
}
"""An insert, or a change of a table, is done when most replicas have it. One at a time for each table: what is read
with `select_sequential_consistency` is all of it then. A second insert at the same time is refused, and tried again."""

READ_SETTINGS: Final[dict[str, Any]] = {"select_sequential_consistency": 1}
"""How far a table got is asked of a replica that has all that was confirmed."""

_WINDOW_SECONDS: Final = 366 * 24 * 3600
"""A replicated table forgets tokens by their age too, by default within days: a retry may come later than that."""

_TABLE: Final = r"`?\w+`?(?:\.`?\w+`?)?"
_DEFINED: Final = re.compile(
    rf"(?P<what>CREATE DATABASE IF NOT EXISTS|CREATE TABLE(?: IF NOT EXISTS)?|CREATE OR REPLACE VIEW|"
    rf"ALTER TABLE|DROP TABLE IF EXISTS|DROP VIEW IF EXISTS) (?P<name>{_TABLE})(?P<rest>.*)",
    re.DOTALL,
)
_KILL: Final = re.compile(r"KILL QUERY (?=WHERE)")
_TEXT: Final = re.compile(r"('(?:[^'\\]|\\.)*')")
_ENGINE: Final = re.compile(r"\bENGINE = (?=\w*MergeTree\b)")
_WINDOW: Final = re.compile(r"\bnon_replicated_deduplication_window = (\d+)")


def on_cluster(statement: str, cluster: str) -> str:
    """One of our statements for all servers of a cluster, its tables replicated; what is none of these, as it is.

    Scratch tables and temporary ones stay on the server that was asked.
    """
    where = f"ON CLUSTER {quoted(cluster)}"
    if _KILL.match(statement):
        return _KILL.sub(f"KILL QUERY {where} ", statement, count=1)
    found = _DEFINED.fullmatch(statement)
    if found is None:
        return statement
    rest = found["rest"]
    if found["what"].startswith("CREATE TABLE"):
        rest = "".join(part if nth % 2 else _replicated(part) for nth, part in enumerate(_TEXT.split(rest)))
    return f"{found['what']} {found['name']} {where}{rest}"


def _replicated(clause: str) -> str:
    clause = _ENGINE.sub("ENGINE = Replicated", clause)
    return _WINDOW.sub(
        rf"replicated_deduplication_window = \1, replicated_deduplication_window_seconds = {_WINDOW_SECONDS}", clause
    )
