"""What an orchestrator asks of a process: whether it lives, whether it is ready, and its figures for Prometheus."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
from magnetar.schemas import SettingsError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .clock import Clock
from .settings import Settings
from .users_code import under_way

STUCK_SECONDS: Final = 90.0
"""A loop that has not come round for so long is stuck: longer than any time-out within it."""


class Health:
    """Says how a process is. The loop says that it goes round, on one thread; the answers are given on another.

    A process is *alive* while its loop goes round, also when it waits for partitions, for the broker or for ClickHouse:
    to kill it would mend nothing. It is *ready* from the moment when it takes part.
    """

    def __init__(self, clock: Clock, *, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._clock = clock
        self._stuck_seconds = stuck_seconds
        self._beat_at = clock.monotonic()
        self.is_ready = False

    def beat(self) -> None:
        """The loop has come round."""
        self._beat_at = self._clock.monotonic()

    def beating(self, stopped: Callable[[], bool]) -> Callable[[], bool]:
        """What a loop asks before each round, so that to ask is to beat."""

        def look() -> bool:
            self.beat()
            return stopped()

        return look

    @property
    def silent_seconds(self) -> float:
        """How long ago the loop came round."""
        return self._clock.monotonic() - self._beat_at

    @property
    def is_alive(self) -> bool:
        """Whether the loop goes round."""
        return self.silent_seconds < self._stuck_seconds


def application(health: Health) -> Starlette:
    """`/healthz`, `/readyz` and `/metrics`."""

    def healthz(_: Request) -> Response:
        if health.is_alive:
            return PlainTextResponse("ok\n")
        where = "".join(f"; it is in {each}" for each in under_way())
        said = f"the loop has not come round for {health.silent_seconds:.0f} s{where}\n"
        return PlainTextResponse(said, status_code=503)

    def readyz(_: Request) -> Response:
        if health.is_ready:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not taking part yet\n", status_code=503)

    def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


@contextmanager
def answering(health: Health, settings: Settings) -> Generator[None]:
    """Answer while the block runs, if the settings name a port. Raises SettingsError if the port is taken."""
    if settings.health_port is None:
        yield
        return
    listening = _listen(settings.health_host, settings.health_port)
    config = uvicorn.Config(
        application(health), log_config=None, log_level="critical", access_log=False, interface="asgi3",
        lifespan="off", proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="magnetar-health", daemon=True)
    thread.start()
    host, port = listening.getsockname()[:2]
    structlog.get_logger("magnetar.health").info("answering", url=f"http://{host}:{port}/healthz")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(5)
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"Port {port} of {host} cannot be listened on: {error.strerror}.",
            cure="Set MAGNETAR_HEALTH_PORT or MAGNETAR_HEALTH_HOST to another, or unset the port.",
        ) from error
    return listening
