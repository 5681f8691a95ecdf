"""The front door: `from magnetar import Aggregate, Command, Event, Rejection, Pipeline`.

It is lazy: a name's module is imported when the name is first used, because importing the engines takes over a second,
which a worker's brain, a test of it or `magnetar --help` need not wait for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Absolute imports: relative to this folder type checkers find no `.schemas`, and pyright makes every name an Any.
if TYPE_CHECKING:
    from magnetar.aggregates import Aggregate
    from magnetar.pipelines import Client, CommandParked, Found, Pipeline, Receipt, SyncClient, new_command_id
    from magnetar.projections import Fold, Rows, Sql, Window
    from magnetar.schemas import (
        Command,
        Event,
        Immutable,
        LogUnavailable,
        MagnetarError,
        MessageRefused,
        Meta,
        OutcomeUnknown,
        Position,
        Precision,
        Rejection,
        State,
        TablesBehind,
    )

_HOME_OF = {
    "Aggregate": "aggregates",
    "Client": "pipelines",
    "Command": "schemas",
    "CommandParked": "pipelines",
    "Event": "schemas",
    "Fold": "projections",
    "Found": "pipelines",
    "Immutable": "schemas",
    "LogUnavailable": "schemas",
    "MagnetarError": "schemas",
    "MessageRefused": "schemas",
    "Meta": "schemas",
    "OutcomeUnknown": "schemas",
    "Pipeline": "pipelines",
    "Position": "schemas",
    "Precision": "schemas",
    "Receipt": "pipelines",
    "Rejection": "schemas",
    "Rows": "projections",
    "Sql": "projections",
    "State": "schemas",
    "SyncClient": "pipelines",
    "TablesBehind": "schemas",
    "Window": "projections",
    "new_command_id": "pipelines",
}

__all__ = [
    "Aggregate",
    "Client",
    "Command",
    "CommandParked",
    "Event",
    "Fold",
    "Found",
    "Immutable",
    "LogUnavailable",
    "MagnetarError",
    "MessageRefused",
    "Meta",
    "OutcomeUnknown",
    "Pipeline",
    "Position",
    "Precision",
    "Receipt",
    "Rejection",
    "Rows",
    "Sql",
    "State",
    "SyncClient",
    "TablesBehind",
    "Window",
    "new_command_id",
]


def __getattr__(name: str) -> Any:
    """Import the room that a public name lives in. Raises AttributeError for any other name."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
