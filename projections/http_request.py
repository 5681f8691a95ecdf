"""ClickHouse's HTTP protocol on the asker's side: who asks, and what stands where in a request."""

from __future__ import annotations

import re
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Final
from uuid import uuid4

from magnetar.schemas import QueryRefused
from starlette.requests import Request

from .engine_reader import TEXT_BYTES_MAX, Question
from .statement import clickhouse_error

_HOST: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")

_ID: Final = re.compile(r"[!-~]{1,128}")

_TRANSPORT: Final = frozenset(
    (
        *("query", "database", "default_format", "query_id", "user", "role", "quota_key", "compress", "decompress"),
        *("session_id", "session_timeout", "session_check", "client_protocol_version", "add_http_cors_header"),
        *("buffer_size", "wait_end_of_query", "http_response_buffer_size", "http_write_exception_in_output_format"),
        *("send_progress_in_http_headers", "http_headers_progress_interval_ms", "stacktrace"),
        "cancel_http_readonly_queries_on_client_close",
    )
)
"""Parameters of a URL that are no settings. A session could hold temporary tables and settings, which a reader has not;
progress is not sent."""


def admit(request: Request, token: str) -> None:
    """Raises QueryRefused for a request that comes under a foreign name, from a web page, or without the token.

    A page in a browser may send requests to any port of this machine: under a name of its own that leads here (then
    `Host` is that name), or straight (then there is an `Origin`).
    """
    if not _HOST.fullmatch(request.headers.get("host", "")):
        raise _not_admitted("this endpoint is asked as 127.0.0.1 or localhost alone.")
    if "origin" in request.headers:
        raise _not_admitted("web pages are not answered.")
    if not secrets.compare_digest(_given_token(request).encode(), token.encode()):
        raise _not_admitted("the password is the token in query-endpoint.json of the data folder.")


def _not_admitted(why: str) -> QueryRefused:
    return clickhouse_error("AUTHENTICATION_FAILED", f"default: Authentication failed: {why}")


def _given_token(request: Request) -> str:
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic":
        try:
            return b64decode(rest).decode().partition(":")[2]
        except (Base64Error, UnicodeDecodeError):
            return ""
    return request.headers.get("x-clickhouse-key", "")


async def read_question(request: Request) -> Question | None:
    """What a request asks; None if it asks nothing. Raises QueryRefused for what this protocol has and we have not."""
    given = dict(request.query_params)
    body = await _body(request)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        given |= _form(request.headers["content-type"], body)
        body = b""
    if request.headers.get("content-encoding", "identity") != "identity" or given.get("decompress", "0") != "0":
        raise clickhouse_error("NOT_IMPLEMENTED", "Compressed requests are not taken.")
    if given.get("compress", "0") != "0":
        raise clickhouse_error("NOT_IMPLEMENTED", "compress=1 is not taken: ask with Accept-Encoding.")
    sql = "\n".join(part for part in (given.get("query", ""), body.decode(errors="replace")) if part)
    if not sql.strip():
        return None
    return Question(
        sql=sql,
        default_format=given.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated",
        parameters={name[6:]: value for name, value in given.items() if name.startswith("param_")},
        settings={k: v for k, v in given.items() if k not in _TRANSPORT and not k.startswith("param_")},
        database=given.get("database") or request.headers.get("x-clickhouse-database", ""),
        native_revision=int(revision) if (revision := given.get("client_protocol_version", "")).isdecimal() else 0,
        query_id=given["query_id"] if _ID.fullmatch(given.get("query_id", "")) else str(uuid4()),
    )


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > TEXT_BYTES_MAX:
            raise clickhouse_error("QUERY_IS_TOO_LARGE", f"A query has at most {TEXT_BYTES_MAX} bytes.")
        parts.append(part)
    return b"".join(parts)


def _form(content_type: str, body: bytes) -> Mapping[str, str]:
    """The fields of a form: how clients send a query whose parameters are too long for a URL."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        if part.get_filename():
            raise clickhouse_error("NOT_IMPLEMENTED", "External data is not taken.")
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        fields[str(name)] = content.decode(errors="replace") if isinstance(content, bytes) else ""
    return fields
