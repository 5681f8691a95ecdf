"""How many digits a decimal has: `price: Annotated[Decimal, Precision(18, 2)]`."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Final

import msgspec

from .errors import DeclarationError

DIGITS_MAX: Final = 76
"""What ClickHouse's widest Decimal holds."""


class Precision(msgspec.Struct, frozen=True, gc=False):
    """`digits` in all, `decimals` of them behind the point: `Precision(18, 2)` reaches to 9999999999999999.99.

    Raises DeclarationError unless 1 ≤ digits ≤ 76 and 0 ≤ decimals ≤ digits.
    """

    digits: int
    decimals: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (1 <= self.digits <= DIGITS_MAX and 0 <= self.decimals <= self.digits):
            raise DeclarationError(
                f"A decimal cannot have {self.digits} digits, {self.decimals} of them behind the point.",
                cure=f"Precision(digits, decimals): 1 to {DIGITS_MAX} digits, and no more decimals than digits.",
            )

    def fit(self, value: Decimal) -> Decimal:
        """The same number with exactly `decimals` places. Raises ValueError if it would be rounded, or is too long."""
        context = Context(prec=self.digits, traps=[InvalidOperation, Inexact])
        try:
            if value.is_finite():
                return value.quantize(Decimal((0, (1,), -self.decimals)), context=context)
            raise ValueError("is no number")
        except (InvalidOperation, Inexact):
            raise ValueError(f"does not fit {self!r}: it would have to be rounded or cut") from None
