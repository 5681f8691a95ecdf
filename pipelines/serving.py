"""The client of a running ASGI application: opened when the application starts, closed when it ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from magnetar.schemas import SettingsError

if TYPE_CHECKING:
    from .client import Client
    from .pipeline import Pipeline


class Serving:
    """One pipeline's client, shared by the applications of this process that run at the same time."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._applications = 0
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client. Raises SettingsError while no application runs."""
        client = self._client
        if client is None:
            name = self._pipeline.name
            raise SettingsError(
                f"The pipeline {name!r} has a client only while an application runs with its lifespan.",
                cure=f"FastAPI(lifespan={name}.lifespan), or `async with {name}.lifespan():`; else open a Client.",
            )
        return client

    def start(self) -> None:
        """Open the client, unless another application has. Blocks: call it on a thread."""
        from .client import Client

        with self._lock:
            if self._client is None:
                self._client = Client(self._pipeline)
            self._applications += 1

    def end(self) -> Client | None:
        """Give the client back; returns it, to be closed, if no other application has it."""
        with self._lock:
            self._applications -= 1
            if self._applications:
                return None
            client, self._client = self._client, None
            return client
