"""The engine's HTTP protocol on loopback, for SELECT only: how other processes query while the engine is open here."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from base64 import b64decode
from binascii import Error as Base64Error
from pathlib import Path

import uvicorn
from magnetar.schemas import QueryRefused
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .query import ENDPOINT_FILE
from .store import Store


class HttpFront:
    """Listens on 127.0.0.1, on a port that the system chooses, and asks everybody for the token.

    `endpoint` is written to the data folder, readable by its owner alone, and removed by `close`.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._token = secrets.token_urlsafe(32)
        self._file = folder / ENDPOINT_FILE
        routes = [Route("/", self._answer, methods=["GET", "POST"]), Route("/ping", _ping, methods=["GET"])]
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="magnetar-http", daemon=True)

    def start(self) -> str:
        """Begin to listen; returns the URL."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise QueryRefused("The loopback endpoint could not be opened.", cure="Is 127.0.0.1 usable?")
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        making = self._file.with_suffix(f".{os.getpid()}")
        making.touch(mode=0o600)
        making.write_text(json.dumps({"url": url, "token": self._token, "pid": os.getpid()}))
        making.replace(self._file)
        return url

    def close(self) -> None:
        """Listen no more."""
        self._file.unlink(missing_ok=True)
        if self._thread.is_alive():
            self._server.should_exit = True
            self._thread.join(5)

    async def _answer(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return Response("Code: 516. The token is missing or wrong. (AUTHENTICATION_FAILED)\n", 401)
        body = (await request.body()).decode(errors="replace")
        sql = "\n".join(part for part in (request.query_params.get("query", ""), body) if part)
        fmt = request.query_params.get("default_format", "TabSeparated")
        parameters = {k[6:]: v for k, v in request.query_params.items() if k.startswith("param_")}
        try:
            answer = await run_in_threadpool(self._store.read_only, sql, fmt=fmt, parameters=parameters)
        except QueryRefused as error:
            return Response(error.what + "\n", 400)
        return Response(answer, media_type="application/octet-stream")

    def _is_allowed(self, request: Request) -> bool:
        given = request.headers.get("X-ClickHouse-Key", "")
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = b64decode(rest).decode().partition(":")[2]
            except (Base64Error, UnicodeDecodeError):
                given = ""
        elif scheme.lower() == "bearer":
            given = rest
        return secrets.compare_digest(given.encode(), self._token.encode())


async def _ping(_: Request) -> Response:
    return Response("Ok.\n")
