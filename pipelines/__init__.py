"""The pipeline, the log port, the workers and the clients.

It is lazy, as the front door is: `magnetar --help` must not wait for the client and all that it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client, CommandParked, Found, Outgoing, Receipt, SyncClient, new_command_id
    from .pipeline import Pipeline

_HOME_OF = {
    "Client": "client",
    "CommandParked": "client",
    "Found": "client",
    "Outgoing": "client",
    "Pipeline": "pipeline",
    "Receipt": "client",
    "SyncClient": "client",
    "new_command_id": "client",
}

__all__ = ["Client", "CommandParked", "Found", "Outgoing", "Pipeline", "Receipt", "SyncClient", "new_command_id"]


def __getattr__(name: str) -> Any:
    """Import the module that a public name lives in. Raises AttributeError for any other name."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value
