"""The engine's HTTP protocol on loopback, for reading only: how other processes query while the engine is open here."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import structlog
import uvicorn
from magnetar.schemas import MagnetarError, QueryRefused, SettingsError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .endpoint import Endpoint
from .engine_reader import Answer, EngineReader, Question
from .freshness import Going, step
from .http_after import After
from .http_answer import Encoder, encoder_for, error_response, exception_block, headers_of
from .http_request import admit, read_question
from .query import ENDPOINT_FILE, PORT_FILE, publish, token_of
from .statement import clickhouse_error

SHORT_BYTES: Final = 1 << 20
"""An answer up to this size leaves in one piece: an error in it still has its own status. Larger ones are streamed."""

CONTROL_PATH: Final = "/control/generations"
CONTROL_BYTES_MAX: Final = 1 << 16

STALLED_SECONDS: Final = 60.0
"""A client that takes nothing for so long has its question ended."""

WAITING_MAX: Final = 64
"""More questions than this that wait for their turn are refused, with a status that clients repeat."""

T = TypeVar("T")

_METHODS: Final = "GET, HEAD, POST, OPTIONS"


class _Asked(NamedTuple):
    """A question whose asker waits at the other end of a connection."""

    question: Question
    encoder: Encoder
    gone: asyncio.Task[None]
    """Done when the asker has hung up."""
    send: Send


class _BrokenOff(Exception):
    """The connection ends without the answer's end, so that nobody takes a part for the whole."""


def _bound(port: int) -> socket.socket:
    # The protocol is named, or else asyncio leaves Nagle's algorithm on: every answer would come 40 ms later.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}.",
            cure="Set MAGNETAR_QUERY_PORT to another.",
        ) from error
    return listening


class HttpFront:
    """Listens on 127.0.0.1, on a port that the system chooses once unless one is given, and asks all for the token.

    The endpoint is written to the data folder, readable by its owner alone, and removed by `close`.
    """

    def __init__(
        self, reader: EngineReader, folder: Path, *, port: int = 0, control: Callable[[bytes], bytes] | None = None
    ) -> None:
        """`control` answers what is posted to CONTROL_PATH; what it raises is for whoever posted it."""
        self._reader = reader
        self._control = control
        self._token = token_of(folder)
        self._file = folder / ENDPOINT_FILE
        self._slots = asyncio.Semaphore(reader.limits.concurrent_max)
        self._asked = 0
        self._timezone = ""
        config = uvicorn.Config(
            self._app,
            log_config=None,
            log_level="critical",  # an answer that is broken off would be logged with a traceback
            access_log=False,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._port = port
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Begin to listen; returns the URL. Raises SettingsError if the port is taken."""
        self._timezone = self._reader.timezone()
        listening = self._listen()
        port: int = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(listening,), name="magnetar-http", daemon=True)
        self._thread.start()
        url = f"http://127.0.0.1:{port}/"
        publish(self._file.parent, Endpoint(url, self._token))
        return url

    def _listen(self) -> socket.socket:
        """On the port that is wanted, or else on that of the last time, as long as nobody else has it."""
        last = self._file.with_name(PORT_FILE)
        if self._port:
            return _bound(self._port)
        try:
            return _bound(int(last.read_text()))
        except (OSError, ValueError, OverflowError, SettingsError):
            listening = _bound(0)
            last.write_text(str(listening.getsockname()[1]))
            return listening

    def close(self) -> None:
        """Listen no more, and end the questions that are being answered."""
        self._file.unlink(missing_ok=True)
        self._server.should_exit = True
        self._reader.close()
        if self._thread is not None:
            self._thread.join(10)

    def _serve(self, listening: socket.socket) -> None:
        with listening:
            self._server.run([listening])

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request, send)
        except QueryRefused as error:
            response = error_response(error)
        except _BrokenOff:
            raise
        except Exception as error:
            structlog.get_logger("magnetar.http").error("a request failed", error=type(error).__name__)
            raise
        if response is not None:
            await response(scope, receive, send)

    async def _respond(self, request: Request, send: Send) -> Response | None:
        """The response, or None if it has been sent, or if nobody is there to take it."""
        admit(request, self._token)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": _METHODS})
        if request.method not in _METHODS.split(", "):
            return Response(status_code=405, headers={"Allow": _METHODS})
        if request.url.path == CONTROL_PATH and self._control is not None:
            return await _controlled(self._control, request)
        if request.url.path not in {"/", "/ping"}:
            return Response("There is nothing at this path.\n", 404)
        question = await read_question(request)
        if question is None or request.url.path == "/ping":
            return Response("Ok.\n")
        if self._asked >= WAITING_MAX:
            raise clickhouse_error("TOO_MANY_SIMULTANEOUS_QUERIES", "Too many queries wait for their turn.")
        self._asked += 1
        gone = asyncio.create_task(_gone(request))
        try:
            extra = await self._caught_up(After.of(request), gone)
            async with self._slots:
                return await self._answer(_Asked(question, encoder_for(request), gone, send), extra)
        finally:
            self._asked -= 1
            gone.cancel()

    async def _caught_up(self, after: After, gone: asyncio.Task[None]) -> dict[str, str]:
        """Wait until the tables have what the answer has to show; returns headers that say if they have not.

        While it waits, others have their turn.
        """
        attempts = after.attempts(self._reader)
        while after.positions and not gone.done():
            async with self._slots:
                found = await run_in_threadpool(step, attempts)
            if not isinstance(found, Going):
                return found
            await asyncio.wait({gone}, timeout=found.pause_seconds)
        return {}

    async def _answer(self, asked: _Asked, extra: dict[str, str]) -> Response | None:
        started = await self._unless_gone(asked, partial(_begin, self._reader, asked.question, asked.encoder))
        if started is None:
            return None
        answer, piece, has_ended = started
        try:
            headers = extra | headers_of(answer, asked.question, asked.encoder, self._timezone)
            if has_ended:
                return Response(piece, headers=headers)
            await self._stream(asked, answer, piece, headers)
        finally:
            answer.close()
        return None

    async def _stream(self, asked: _Asked, answer: Answer, piece: bytes, headers: dict[str, str]) -> None:
        """Send block after block. An error after the first one leaves in the body, and the connection breaks off."""
        tag = headers["X-ClickHouse-Exception-Tag"] = secrets.token_hex(8)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await asked.send({"type": "http.response.start", "status": 200, "headers": raw})
        while piece:
            message = {"type": "http.response.body", "body": piece, "more_body": True}
            await asyncio.wait_for(asked.send(message), STALLED_SECONDS)
            try:
                fetched = await self._unless_gone(asked, partial(_next_piece, answer, asked.encoder))
            except QueryRefused as error:
                block = asked.encoder.encode(exception_block(error.what, tag)) + asked.encoder.flush()
                await asked.send({"type": "http.response.body", "body": block, "more_body": True})
                raise _BrokenOff from error
            piece = fetched or b""
        if asked.gone.done():
            raise _BrokenOff
        await asked.send({"type": "http.response.body", "body": asked.encoder.flush()})

    async def _unless_gone(self, asked: _Asked, work: Callable[[], T]) -> T | None:
        """What blocking work comes to; None if the asker hangs up meanwhile: then the question is ended first."""
        working = asyncio.ensure_future(run_in_threadpool(work))
        await asyncio.wait({working, asked.gone}, return_when=asyncio.FIRST_COMPLETED)
        while not working.done():
            await run_in_threadpool(self._reader.end, asked.question)
            await asyncio.wait({working}, timeout=0.2)
        if not asked.gone.done():
            return working.result()
        if working.exception() is None and isinstance(result := working.result(), _Started):
            result.answer.close()
        return None


class _Started(NamedTuple):
    """An answer with its first piece."""

    answer: Answer
    piece: bytes
    has_ended: bool


def _begin(reader: EngineReader, question: Question, encoder: Encoder) -> _Started:
    """Ask, and wait for the whole answer or for its first SHORT_BYTES."""
    answer = reader.ask(question)
    try:
        blocks: list[bytes] = []
        while sum(map(len, blocks)) < SHORT_BYTES and (block := answer.block()):
            blocks.append(block)
        has_ended = not blocks or sum(map(len, blocks)) < SHORT_BYTES
        piece = encoder.encode(b"".join(blocks))
        return _Started(answer, piece + encoder.flush() if has_ended else piece, has_ended)
    except BaseException:
        answer.close()
        raise


def _next_piece(answer: Answer, encoder: Encoder) -> bytes:
    """The next encoded bytes; none at the end."""
    while block := answer.block():
        if piece := encoder.encode(block):
            return piece
    return b""


async def _controlled(control: Callable[[bytes], bytes], request: Request) -> Response:
    """The answer to a wish; a refusal has the error's name, what, and cure in it."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > CONTROL_BYTES_MAX:
            return Response("A wish is short.\n", 413)
    try:
        return Response(await run_in_threadpool(control, body), media_type="application/json")
    except MagnetarError as error:
        said = {"error": type(error).__name__, "what": error.what, "cure": error.cure}
        return Response(json.dumps(said), 409, media_type="application/json")


async def _gone(request: Request) -> None:
    """Wait until the asker hangs up, or until the response is complete."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
