"""The read side: projections, the mirror, the store."""

from .declarations import Fold, Row, Rows, Sql

__all__ = ["Fold", "Row", "Rows", "Sql"]
