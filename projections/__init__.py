"""The read side: projections, the mirror, the store."""

from .declarations import Row, Sql

__all__ = ["Row", "Sql"]
