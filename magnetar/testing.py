"""The test kit's front door: `from magnetar.testing import given, project`.

`Embedded` is what `with accounts.embedded() as running` gives, for the annotation of a fixture. It is imported when it
is used: tests of a brain need not wait for it.
"""

from typing import TYPE_CHECKING, Any

from magnetar.aggregates import given
from magnetar.projections.kit import project

if TYPE_CHECKING:
    from magnetar.pipelines.embedded import Embedded

__all__ = ["Embedded", "given", "project"]


def __getattr__(name: str) -> Any:
    """Import `Embedded`. Raises AttributeError for any other name."""
    if name != "Embedded":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from magnetar.pipelines.embedded import Embedded

    return Embedded
