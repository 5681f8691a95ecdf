"""The pipeline, the log port, the workers and the clients.

The clients are imported when they are first used: a module that declares a pipeline does not wait for asyncio and the
settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .pipeline import Pipeline

if TYPE_CHECKING:
    from .client import Client, CommandParked, Outgoing, Receipt, SyncClient, new_command_id

__all__ = ["Client", "CommandParked", "Outgoing", "Pipeline", "Receipt", "SyncClient", "new_command_id"]


def __getattr__(name: str) -> Any:
    """A name of the clients'. Raises AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.client"), name)
