"""A ClickHouse server for tests: the embedded engine in a process of its own, behind ClickHouse's HTTP protocol.

It takes what a server takes of us: statements that write, blocks that are sent along with them (`input`), rows that are
sent along with a query (external data). Questions go the way that they go through the projector's own endpoint.

    python -m tests.clickhouse_server FOLDER ADDRESS PORT USER PASSWORD [CERTIFICATE KEY]
"""

import contextlib
import gzip
import importlib
import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from magnetar.projections.columns import literal
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.engine_reader import EngineReader, QueryLimits, Question
from magnetar.schemas import QueryRefused
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.pulsar_secured import Authority

_INPUT: Final = re.compile(r"\binput\(('(?:[^'\\]|\\.)*')\)")
_FORMAT: Final = re.compile(r"\s+FORMAT\s+(\w+)\s*$")
_INLINE: Final = re.compile(rb"\A(?:\s*/\*.*?\*/)?\s*INSERT\s.*?\sFORMAT\s+(\w+)[ \t]*\n", re.DOTALL)
_READING: Final = re.compile(r"\A\s*(SELECT|WITH|SHOW|DESCRIBE|EXISTS)\b")
_TRANSPORT: Final = {
    *("query", "database", "default_format", "query_id", "session_id", "session_timeout", "compress", "decompress"),
    *("client_protocol_version", "wait_end_of_query", "send_progress_in_http_headers"),
    *("http_headers_progress_interval_ms", "enable_http_compression", "cancel_http_readonly_queries_on_client_close"),
}


READER: Final = "reader"
"""Who may change nothing, with the password of the one who may."""


class Server:
    """One engine, one user who may do all with it, and one who may read."""

    def __init__(self, folder: Path, user: str, password: str) -> None:
        self._folder, self._user, self._password = folder, user, password
        self._path = str((folder / "clickhouse").absolute())
        self._engine = _connected(self._path)
        self._reader = EngineReader(self._path, QueryLimits(concurrent_max=64))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            self._admit(request)
            body = await request.body()
            response = await run_in_threadpool(self._answer, request, _decompressed(request, body))
        except QueryRefused as error:
            code = int(str(error.fields.get("code", 0)))
            headers = {"X-ClickHouse-Exception-Code": str(code)}
            response = Response(error.what + "\n", 403 if code == 516 else 500, headers)
        await response(scope, receive, send)

    def _admit(self, request: Request) -> None:
        user, password = request.headers.get("x-clickhouse-user", ""), request.headers.get("x-clickhouse-key", "")
        if (basic := request.headers.get("authorization", "")).startswith("Basic "):
            user, _, password = b64decode(basic[6:]).decode().partition(":")
        if user not in {self._user, READER} or password != self._password:
            what = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
            raise QueryRefused(f"Code: 516. DB::Exception: {what} (AUTHENTICATION_FAILED)", code=516)
        request.state.user = user

    def _answer(self, request: Request, body: bytes) -> Response:
        if request.url.path == "/ping":
            return Response("Ok.\n")
        given = dict(request.query_params)
        files: dict[str, bytes] = {}
        if (content := request.headers.get("content-type", "")).startswith("multipart/form-data"):
            fields, files = _form(content, body)
            given, body = given | fields, b""
        if not given.get("query") and not body:
            return Response("Ok.\n")
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            sql = self._read_from_files(given, body, files, Path(folder))
            return self._run(request, given, sql)

    def _read_from_files(self, given: Mapping[str, str], body: bytes, files: Mapping[str, bytes], folder: Path) -> str:
        """The statement, with what was sent along read from files: this engine has no other way."""
        sql, rows = given.get("query", ""), body
        if not sql:
            inline = _INLINE.match(body)
            if inline is None or not (rows := body[inline.end() :]):
                return body.decode()
            sql = inline[0].decode().rstrip()
        for name, data in files.items():
            (folder / name).write_bytes(data)
            structure = literal(given[f"{name}_structure"])
            source = f"file('{folder / name}', '{given[f'{name}_format']}', {structure})"
            return sql.replace(f"FROM {name}", f"FROM {source}")
        fmt = _FORMAT.search(sql)
        if fmt is None:
            return f"{sql}\n{rows.decode()}" if rows else sql
        (folder / "rows").write_bytes(rows)
        sql = sql[: fmt.start()]
        if _INPUT.search(sql):
            return _INPUT.sub(lambda found: f"file('{folder / 'rows'}', '{fmt[1]}', {found[1]})", sql)
        return f"{sql} FROM INFILE '{folder / 'rows'}' FORMAT {fmt[1]}"

    def _run(self, request: Request, given: Mapping[str, str], sql: str) -> Response:
        parameters = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
        others = {name for name in given if name.endswith(("_format", "_structure", "_types"))}
        settings = {k: v for k, v in given.items() if k not in _TRANSPORT | others and not k.startswith("param_")}
        fmt = given.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated"
        headers = {"X-ClickHouse-Timezone": "UTC", "X-ClickHouse-Summary": json.dumps({"written_rows": "0"})}
        is_own = "file('" in sql or "system.settings" in sql  # a reader has no files, and may change no settings
        if request.method == "GET" or (_READING.match(sql) and not is_own):
            question = Question(
                sql=sql,
                default_format=fmt,
                parameters=parameters,
                settings=settings,
                database=given.get("database", ""),
            )
            answer = self._reader.ask(question)
            return Response(answer.whole(), headers=headers | {"X-ClickHouse-Format": answer.format})
        connection = _connected(self._path)
        try:
            if given.get("database"):
                connection.query(f"USE `{given['database']}`", "Null")
            if request.state.user == READER:
                settings["readonly"] = "1"  # the last one: nothing can be set behind it
            for name, value in settings.items():
                connection.query(f"SET {name} = '{value}'", "Null")
            found = connection.query(sql, fmt, params=parameters)
            return Response(found.bytes(), headers=headers)
        except RuntimeError as error:
            text = str(error)
            code = re.search(r"Code: (\d+)\.", text)
            raise QueryRefused(text, code=0 if code is None else int(code[1])) from error
        finally:
            connection.close()


def _connected(path: str) -> Any:
    """The engine; whoever only starts a server does not load it."""
    return importlib.import_module("chdb").connect(path)


def _decompressed(request: Request, body: bytes) -> bytes:
    """All of a body, which may hold several frames, one behind the other."""
    match request.headers.get("content-encoding", "identity"):
        case "gzip":
            return gzip.decompress(body)
        case "lz4":
            return _lz4_frames(body)
        case _:
            return body


def _lz4_frames(body: bytes) -> bytes:
    frame: Any = importlib.import_module("lz4.frame")
    found = b""
    while body:
        one = frame.LZ4FrameDecompressor()
        found += one.decompress(body)
        body = one.unused_data or b""
    return found


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in message.iter_parts():
        name, content = str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            files[name] = content
        else:
            fields[name] = content.decode()
    return fields, files


class Running:
    """A server that a test has started, and can kill and start again."""

    def __init__(self, folder: Path, authority: Authority | None, address: str, within: Sequence[str] = ()) -> None:
        """`within`: what leads into a namespace of mounts."""
        self._folder = folder
        self._within = within
        self._authority = authority
        self._address = address
        with socket.create_server((address, 0)) as found:
            self._port: int = found.getsockname()[1]
        url = f"http://{address}:{self._port}" if authority is None else f"https://localhost:{self._port}"
        ca = None if authority is None else authority.certificate
        self.endpoint = Endpoint(url, secrets.token_hex(8), user="writer", ca=ca)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The settings that lead to it."""
        found = {
            "MAGNETAR_CLICKHOUSE": self.endpoint.url,
            "MAGNETAR_CLICKHOUSE_USER": self.endpoint.user,
            "MAGNETAR_CLICKHOUSE_PASSWORD": self.endpoint.token,
        }
        return found if self.endpoint.ca is None else {**found, "MAGNETAR_CLICKHOUSE_CA": str(self.endpoint.ca)}

    def start(self) -> None:
        arguments = [str(self._folder), self._address, str(self._port), self.endpoint.user, self.endpoint.token]
        if self._authority is not None:
            arguments += [str(self._authority.server_certificate), str(self._authority.server_key)]
        # The checkout comes behind the installed packages: `magnetar` may have to be the wheel's.
        root = Path(__file__).parents[1]
        serve = f"import sys; sys.path.append({str(root)!r}); from tests.clickhouse_server import main; main()"
        self._process = subprocess.Popen([*self._within, sys.executable, "-c", serve, *arguments])
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                headers = {"X-ClickHouse-User": self.endpoint.user, "X-ClickHouse-Key": self.endpoint.token}
                verify = self.endpoint.verifying
                if httpx.get(f"{self.endpoint.url}/ping", headers=headers, verify=verify).is_success:
                    return
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)  # another process, which says nothing when it begins to listen: it can only be tried again

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def clickhouse(
    folder: Path, authority: Authority | None = None, *, address: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[Running]:
    """A server with its data in a folder, until the end; with TLS if somebody signs for it."""
    running = Running(folder, authority, address, within)
    running.start()
    try:
        yield running
    finally:
        running.kill()


def main() -> None:
    """Serve until the end."""
    folder, address, port, user, password, *signed = sys.argv[1:]
    app = Server(Path(folder), user, password)
    certificate, key = signed or (None, None)
    uvicorn.run(
        app,
        host=address,
        port=int(port),
        log_level="warning",
        lifespan="off",
        h11_max_incomplete_event_size=1 << 20,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


if __name__ == "__main__":
    main()
