"""The pipeline, the log port, the workers and the clients."""

from .client import Client, CommandParked, Outgoing, Receipt, SyncClient
from .pipeline import Pipeline

__all__ = ["Client", "CommandParked", "Outgoing", "Pipeline", "Receipt", "SyncClient"]
