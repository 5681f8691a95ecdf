"""The read side: projections, the mirror, the store."""

from .declarations import Fold, Row, Rows, Sql
from .windows import Window

__all__ = ["Fold", "Row", "Rows", "Sql", "Window"]
