"""What is held in quarantine just now, as a query: what of a key was not released or dropped since."""

from __future__ import annotations

HELD, RELEASED, DROPPED, RAISED_AGAIN = "held", "released", "dropped", "again"


def open_query(where: str) -> str:
    """The events that are held: with those that were released or dropped taken away. A row may stand there twice."""
    by = "`projection`, generation, aggregate, partition, id"
    done = (
        f"SELECT {by}, max(version) AS done FROM magnetar.quarantine WHERE step IN ('{RELEASED}', '{DROPPED}') "
        f"AND {where} GROUP BY {by}"
    )
    return (
        f"SELECT held.* FROM (SELECT * FROM magnetar.quarantine WHERE step = '{HELD}' AND {where} "
        f"ORDER BY at LIMIT 1 BY {by}, version) AS held LEFT JOIN ({done}) AS done USING ({by}) "
        "WHERE held.version > done.done"
    )
