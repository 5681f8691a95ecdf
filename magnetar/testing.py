"""The test kit's front door: `from magnetar.testing import Occurred, given, project, replay`.

`Embedded` is what `with accounts.embedded() as running` gives, for the annotation of a fixture. It and `replay` are
imported when they are used: tests of a brain need not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from magnetar.aggregates import given
from magnetar.projections.kit import project
from magnetar.projections.kit_keyed import FoldedRow, Occurred

if TYPE_CHECKING:
    from magnetar.pipelines.embedded import Embedded
    from magnetar.pipelines.recordings import replay

__all__ = ["Embedded", "FoldedRow", "Occurred", "given", "project", "replay"]

_LATER: Final = {"Embedded": "magnetar.pipelines.embedded", "replay": "magnetar.pipelines.recordings"}


def __getattr__(name: str) -> Any:
    """Import `Embedded` or `replay`. Raises AttributeError for any other name."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
