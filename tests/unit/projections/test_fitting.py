"""Which columns the fields of an Sql projection take."""

from collections.abc import Mapping
from datetime import time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from magnetar.projections.sql_views import _fits
from magnetar.schemas import Immutable, Precision


class Color(Enum):
    RED = "red"


class Money(Immutable):
    amount: Annotated[Decimal, Precision(18, 2)]


@pytest.mark.parametrize(
    ("annotation", "column"),
    [
        (Annotated[Decimal, Precision(18, 2)], "Decimal(18, 2)"),
        (Decimal | None, "Nullable(Decimal(38, 2))"),
        (UUID, "UUID"),
        (time, "Int64"),
        (timedelta, "Int64"),
        (Color | None, "LowCardinality(Nullable(String))"),
        (Literal["a"], "LowCardinality(String)"),
        (tuple[int, ...], "Array(Int64)"),
        (tuple[int, str], "Tuple(\n    e1 Int64,\n    e2 String)"),
        (frozenset[str], "Array(String)"),
        (Mapping[str, int], "Map(String, Int64)"),
        (Money, "Tuple(\n    amount Decimal(18, 2))"),
    ],
)
def test_a_field_takes_the_column_of_its_type_and_no_other(annotation: Any, column: str) -> None:
    assert _fits(annotation, column)
    assert not _fits(annotation, "Bool")
