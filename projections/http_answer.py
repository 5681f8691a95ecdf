"""ClickHouse's HTTP protocol on the answer's side: headers, encodings, and errors that clients read as its own."""

from __future__ import annotations

import json
import zlib
from typing import Final

from clickhouse_connect.driver.compression import get_compressor
from magnetar.schemas import QueryRefused
from starlette.requests import Request
from starlette.responses import Response

from .engine_reader import Answer, Question

_ENCODINGS: Final = ("lz4", "gzip", "deflate")
"""Among those that a client takes, the fastest first, since it runs on this machine."""

_ZLIB_FORMATS: Final = {"gzip": 31, "deflate": 15}

_STATUS: Final = {
    46: 404,  # UNKNOWN_FUNCTION
    47: 404,  # UNKNOWN_IDENTIFIER
    48: 501,  # NOT_IMPLEMENTED
    60: 404,  # UNKNOWN_TABLE
    81: 404,  # UNKNOWN_DATABASE
    159: 408,  # TIMEOUT_EXCEEDED
    202: 503,  # TOO_MANY_SIMULTANEOUS_QUERIES: clients ask again
    223: 413,  # QUERY_IS_TOO_LARGE
    241: 507,  # MEMORY_LIMIT_EXCEEDED
    516: 403,  # AUTHENTICATION_FAILED
}
"""The status for ClickHouse's code, as a server chooses it; any other is 400."""

_TEXT_TYPES: Final = {
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
}


class Encoder:
    """Compresses an answer as its asker takes it, or not at all."""

    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding
        self._zlib = zlib.compressobj(1, wbits=_ZLIB_FORMATS[encoding]) if encoding in _ZLIB_FORMATS else None

    def encode(self, piece: bytes) -> bytes:
        """The next part of the answer; it may be kept back until more comes."""
        if self._zlib is not None:
            return self._zlib.compress(piece)
        return bytes(get_compressor(self.encoding).compress_block(piece)) if piece else b""

    def flush(self) -> bytes:
        """What is still kept back, at the end."""
        return self._zlib.flush() if self._zlib is not None else b""


def encoder_for(request: Request) -> Encoder:
    """What the request's `Accept-Encoding` says, unless `enable_http_compression=0`."""
    if request.query_params.get("enable_http_compression") == "0":
        return Encoder(None)
    parts = [part.replace(" ", "").partition(";q=") for part in request.headers.get("accept-encoding", "").split(",")]
    taken = {name.lower() for name, _, weight in parts if not weight or weight.strip("0.")}
    return Encoder(next((encoding for encoding in _ENCODINGS if encoding in taken), None))


def headers_of(answer: Answer, question: Question, encoder: Encoder, timezone: str) -> dict[str, str]:
    """What clients read before the body. The numbers count what was read until now."""
    summary = {"read_rows": answer.read_rows, "read_bytes": answer.read_bytes, "result_rows": answer.rows}
    headers = {
        "Content-Type": _TEXT_TYPES.get(answer.format, "application/octet-stream"),
        "X-ClickHouse-Format": answer.format,
        "X-ClickHouse-Query-Id": question.query_id,
        "X-ClickHouse-Server-Display-Name": "magnetar",
        "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in summary.items()}),
        "X-ClickHouse-Timezone": question.settings.get("session_timezone") or timezone,
    }
    return headers | ({"Content-Encoding": encoder.encoding} if encoder.encoding else {})


def error_response(error: QueryRefused) -> Response:
    """An error before the first byte of an answer."""
    code = int(str(error.fields.get("code", 0)))
    return Response(
        error.what + "\n",
        _STATUS.get(code, 400),
        headers={"X-ClickHouse-Exception-Code": str(code), "Content-Type": "text/plain; charset=UTF-8"},
    )


def exception_block(what: str, tag: str) -> bytes:
    """An error after the first bytes of an answer: ClickHouse's own form, found by the tag from the headers."""
    text = what.encode() + b"\n"
    mark = b"__exception__"
    return b"\r\n%b\r\n%b\r\n%b%d %b\r\n%b\r\n" % (mark, tag.encode(), text, len(text), tag.encode(), mark)
