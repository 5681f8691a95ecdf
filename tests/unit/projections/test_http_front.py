"""The engine's HTTP protocol on loopback."""

import contextlib
import importlib
import json
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from magnetar.projections import http_front
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.engine_reader import TEXT_BYTES_MAX, QueryLimits
from magnetar.projections.http_front import HttpFront
from magnetar.projections.query import ask_endpoint, read_endpoint
from magnetar.projections.store import Store
from magnetar.schemas import QueryRefused, SettingsError

FOREVER = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"


@pytest.fixture
def endpoint(store: Store, tmp_path: Path) -> Iterator[Endpoint]:
    front = HttpFront(store.reader(), tmp_path)
    front.start()
    found = read_endpoint(tmp_path)
    assert found is not None
    yield found
    front.close()
    assert read_endpoint(tmp_path) is None


def ask(
    endpoint: Endpoint, sql: str | bytes, *, headers: dict[str, str] | None = None, **parameters: str
) -> httpx.Response:
    content = sql.encode() if isinstance(sql, str) else sql
    given = {"X-ClickHouse-Key": endpoint.token, "Accept-Encoding": "identity"} | (headers or {})
    return httpx.post(endpoint.url, content=content, params=parameters, headers=given, timeout=60)


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def running(store: Store, text: str) -> int:
    """How many queries run whose text has this in it, but for the one that asks."""
    sql = "SELECT count() FROM system.processes WHERE position(query, {t:String}) > 0 AND query NOT LIKE '%processes%'"
    ((count,),) = store.query(sql, {"t": text})
    return int(count)


def test_it_listens_on_loopback_alone(endpoint: Endpoint) -> None:
    assert endpoint.host == "127.0.0.1"


def test_the_files_that_hold_the_token_are_their_owners_alone(endpoint: Endpoint, tmp_path: Path) -> None:
    files = [file for file in tmp_path.iterdir() if endpoint.token in file.read_text()]
    assert sorted(file.name for file in files) == ["query-endpoint.json", "query-token"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_token_and_port_stay_the_same_after_a_restart(store: Store, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        front = HttpFront(store.reader(), tmp_path)
        front.start()
        found.append(read_endpoint(tmp_path))
        front.close()
    assert found[0] is not None
    assert found[0] == found[1]


def test_a_port_that_somebody_else_has_taken_meanwhile_is_given_up(
    store: Store, endpoint: Endpoint, tmp_path: Path
) -> None:
    front = HttpFront(store.reader(), tmp_path)
    front.start()
    found = read_endpoint(tmp_path)
    front.close()
    assert found is not None
    assert found.port != endpoint.port


def test_a_port_that_is_taken_is_named_as_the_cause(store: Store, endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MAGNETAR_QUERY_PORT"):
        HttpFront(store.reader(), tmp_path, port=endpoint.port).start()


def test_a_query_is_answered_in_the_format_asked_for(endpoint: Endpoint) -> None:
    assert ask_endpoint(endpoint, "SELECT 1 AS x, 'ü' AS y", "JSONEachRow") == '{"x":1,"y":"ü"}\n'.encode()


BYTES = "SELECT unhex('00C3DE22C31B') AS x, 'ü' AS y"


@pytest.mark.parametrize("clickhouse_format", ["JSON", "JSONEachRow", "PrettyCompactNoEscapes"])
def test_bytes_that_are_no_text_are_legible_all_the_same(
    store: Store, endpoint: Endpoint, clickhouse_format: str
) -> None:
    over_http = ask_endpoint(endpoint, BYTES, clickhouse_format).decode()
    here = store.read_only(BYTES, fmt=clickhouse_format).decode()
    for answered in (over_http, here):
        assert "ü" in answered
        assert "\N{REPLACEMENT CHARACTER}" in answered
        assert not {"\0", "\x1b"} & {*answered}
        if clickhouse_format == "JSONEachRow":
            assert json.loads(answered) == {"x": '\0\ufffd\ufffd"\ufffd\x1b', "y": "ü"}
        if clickhouse_format == "JSON":
            assert json.loads(answered)["data"][0]["y"] == "ü"


def test_a_format_that_has_bytes_keeps_them(store: Store, endpoint: Endpoint) -> None:
    for answered in (ask_endpoint(endpoint, BYTES, "CSV"), store.read_only(BYTES, fmt="CSV")):
        assert answered == b'"\x00\xc3\xde""\xc3\x1b","\xc3\xbc"\n'
    assert b"\xc3\xde" in ask_endpoint(endpoint, f"{BYTES} FORMAT RowBinary", "JSONEachRow")


@pytest.mark.parametrize("token", ["", "wrong", "ü"])
def test_without_the_token_nothing_is_answered(endpoint: Endpoint, token: str) -> None:
    response = httpx.post(endpoint.url, content=b"SELECT 1", headers={b"X-ClickHouse-Key": token.encode()})
    assert response.status_code == httpx.codes.FORBIDDEN
    assert response.headers["X-ClickHouse-Exception-Code"] == "516"
    assert httpx.get(endpoint.url + "ping", headers={b"X-ClickHouse-Key": token.encode()}).status_code == 403


def test_a_token_in_the_url_is_not_taken_where_it_would_be_written_down(endpoint: Endpoint) -> None:
    response = httpx.get(endpoint.url, params={"query": "SELECT 1", "user": "default", "password": endpoint.token})
    assert response.status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "evil.example:8123"}, {"Host": "127.0.0.1.evil.example"}]
)
def test_a_foreign_host_name_is_not_answered_even_with_the_token(endpoint: Endpoint, headers: dict[str, str]) -> None:
    assert ask(endpoint, "SELECT 1", headers=headers).status_code == httpx.codes.FORBIDDEN
    assert ask(endpoint, "SELECT 1", headers={"Host": f"localhost:{endpoint.port}"}).text == "1\n"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
def test_a_web_page_is_not_answered_even_with_the_token(endpoint: Endpoint, origin: str) -> None:
    response = ask(endpoint, "SELECT 1", headers={"Origin": origin})
    assert response.status_code == httpx.codes.FORBIDDEN
    assert not any(name.startswith("access-control") for name in response.headers)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_token_is_taken_as_a_password_too(endpoint: Endpoint, method: str) -> None:
    response = httpx.request(method, endpoint.url, params={"query": "SELECT 2"}, auth=("default", endpoint.token))
    assert response.text == "2\n"


def test_parameters_are_bound(endpoint: Endpoint) -> None:
    response = ask(endpoint, "SELECT {x:String}, {n:Int8}", param_x="it's", param_n="3")
    assert response.text == "it\\'s\t3\n"


def test_parameters_come_in_a_form_when_they_are_long(endpoint: Endpoint) -> None:
    fields = {"query": (None, "SELECT length({x:String})"), "param_x": (None, "ü" * 100_000)}
    response = httpx.post(endpoint.url, files=fields, auth=("default", endpoint.token))
    assert response.text == "200000\n"


def test_the_query_may_stand_partly_in_the_url(endpoint: Endpoint) -> None:
    assert ask(endpoint, "1 AS x FORMAT JSONEachRow", query="SELECT").text == '{"x":1}\n'


@pytest.mark.parametrize(
    ("sql", "code", "name", "status"),
    [
        ("SELECT * FROM nope", 60, "UNKNOWN_TABLE", 404),
        ("SELEKT 1", 62, "SYNTAX_ERROR", 400),
        ("CREATE DATABASE x", 164, "READONLY", 400),
        ("SELECT throwIf(1)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", 400),
        ("SELECT {x:Int8}", 456, "UNKNOWN_QUERY_PARAMETER", 400),
    ],
)
def test_an_error_comes_in_the_engines_words_with_its_code(
    endpoint: Endpoint, sql: str, code: int, name: str, status: int
) -> None:
    response = ask(endpoint, sql)
    assert response.status_code == status
    assert response.headers["X-ClickHouse-Exception-Code"] == str(code)
    assert re.match(rf"Code: {code}\. DB::Exception: .*\({name}\)", response.text, re.DOTALL)
    with pytest.raises(QueryRefused, match=name):
        ask_endpoint(endpoint, sql, "JSON")


def test_an_error_in_the_middle_of_an_answer_breaks_the_connection_off(endpoint: Endpoint) -> None:
    sql = "SELECT number, throwIf(number = 2000000) FROM numbers(3000000)"
    got = b""
    with httpx.stream("POST", endpoint.url, content=sql, auth=("default", endpoint.token), timeout=60) as response:
        tag = response.headers["X-ClickHouse-Exception-Tag"]
        parts = response.iter_bytes()
        with contextlib.suppress(httpx.RemoteProtocolError):
            while True:
                got += next(parts)
    assert f"__exception__\r\n{tag}\r\nCode: 395." in got[-2000:].decode()


def test_the_headers_are_those_that_clients_read(endpoint: Endpoint) -> None:
    response = ask(endpoint, "SELECT number FROM numbers(3)", query_id="mine-1", default_format="CSV")
    assert response.headers["X-ClickHouse-Query-Id"] == "mine-1"
    assert response.headers["X-ClickHouse-Format"] == "CSV"
    assert response.headers["X-ClickHouse-Timezone"]
    assert response.headers["X-ClickHouse-Server-Display-Name"]
    assert response.headers["Content-Type"].startswith("text/csv")
    assert json.loads(response.headers["X-ClickHouse-Summary"])["result_rows"] == "3"


def test_a_query_id_cannot_bring_in_a_header(endpoint: Endpoint) -> None:
    response = ask(endpoint, "SELECT 1", query_id="a\r\nX-Evil: 1")
    assert response.text == "1\n"
    assert "x-evil" not in response.headers


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4"])
@pytest.mark.parametrize("rows", [10, 500_000])
def test_an_answer_is_compressed_as_the_client_takes_it(endpoint: Endpoint, encoding: str, rows: int) -> None:
    lz4 = importlib.import_module("lz4.frame")  # it has no types
    response = ask(endpoint, f"SELECT number FROM numbers({rows})", headers={"Accept-Encoding": encoding})
    assert response.headers["Content-Encoding"] == encoding
    content = response.content
    if encoding == "lz4":
        plain, rest = b"", content
        while rest:
            frame = lz4.LZ4FrameDecompressor()
            plain += frame.decompress(rest)
            rest = frame.unused_data or b""
        content = plain
    assert content == b"".join(b"%d\n" % number for number in range(rows))


def test_what_is_not_taken_compressed_is_sent_as_it_is(endpoint: Endpoint) -> None:
    for headers in ({"Accept-Encoding": "br, zstd"}, {"Accept-Encoding": "gzip;q=0"}):
        assert "Content-Encoding" not in ask(endpoint, "SELECT 1", headers=headers).headers
    response = ask(endpoint, "SELECT 1", headers={"Accept-Encoding": "gzip"}, enable_http_compression="0")
    assert "Content-Encoding" not in response.headers


def test_what_this_endpoint_has_not_is_said(endpoint: Endpoint) -> None:
    assert ask(endpoint, "SELECT 1", compress="1").headers["X-ClickHouse-Exception-Code"] == "48"
    assert ask(endpoint, "SELECT 1", decompress="1").headers["X-ClickHouse-Exception-Code"] == "48"
    assert ask(endpoint, "SELECT 1", headers={"Content-Encoding": "gzip"}).status_code == 501
    assert ask(endpoint, "SELECT 1 FORMAT Native", client_protocol_version="54460").status_code == 501
    assert ask(endpoint, "SELECT 1 FORMAT Native", client_protocol_version="54405").status_code == 200


def test_a_query_that_is_too_long_is_refused(endpoint: Endpoint) -> None:
    assert ask(endpoint, "SELECT '" + "x" * 1_000_000 + "'").status_code == 200
    response = ask(endpoint, "SELECT '" + "x" * TEXT_BYTES_MAX + "'")
    assert (response.status_code, response.headers["X-ClickHouse-Exception-Code"]) == (413, "223")


def test_bytes_that_are_no_text_are_refused_by_the_parser(endpoint: Endpoint) -> None:
    assert ask(endpoint, b"\xff\xfe\x00SELECT").headers["X-ClickHouse-Exception-Code"] == "62"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("OPTIONS", 204), ("PUT", 405), ("DELETE", 405)])
def test_other_methods(endpoint: Endpoint, method: str, status: int) -> None:
    response = httpx.request(method, endpoint.url, auth=("default", endpoint.token))
    assert (response.status_code, response.content) == (status, b"")


def test_without_a_query_it_says_that_it_is_there(endpoint: Endpoint) -> None:
    for path in ("", "ping"):
        assert httpx.get(endpoint.url + path, auth=("default", endpoint.token)).text == "Ok.\n"
    assert httpx.get(endpoint.url + "play", auth=("default", endpoint.token)).status_code == 404


def test_a_client_that_hangs_up_ends_its_query_alone(endpoint: Endpoint, store: Store) -> None:
    with ThreadPoolExecutor() as pool:
        other = pool.submit(ask, endpoint, "SELECT sleep(2), 'other'")
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(endpoint.url, content=FOREVER, auth=("default", endpoint.token), timeout=1)
        eventually(lambda: running(store, "sipHash64") == 0)
        assert other.result().text == "0\tother\n"


def test_a_client_that_hangs_up_in_the_middle_of_an_answer_ends_its_query(endpoint: Endpoint, store: Store) -> None:
    sql = "SELECT number AS hung_up FROM numbers(100000000000)"
    with httpx.stream("POST", endpoint.url, content=sql, auth=("default", endpoint.token)) as response:
        answer = response.iter_raw()  # kept: httpx hangs up when it is dropped
        next(answer)
        assert running(store, "hung_up") == 1
    eventually(lambda: running(store, "hung_up") == 0)


def test_a_client_that_takes_nothing_has_its_query_ended(
    endpoint: Endpoint, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_front, "STALLED_SECONDS", 0.5)
    sql = "SELECT number AS stalled FROM numbers(100000000000)"
    with httpx.stream("POST", endpoint.url, content=sql, auth=("default", endpoint.token)) as response:
        answer = response.iter_raw()  # kept: httpx hangs up when it is dropped
        next(answer)
        eventually(lambda: running(store, "stalled") == 0)


def test_a_large_answer_is_never_whole_in_memory(endpoint: Endpoint) -> None:
    size = 0
    sql = "SELECT number, toString(number) FROM numbers(20000000)"
    before, plain = resident_bytes(), {"Accept-Encoding": "identity", "X-ClickHouse-Key": endpoint.token}
    with httpx.stream("POST", endpoint.url, content=sql, headers=plain, timeout=60) as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        for part in response.iter_raw():
            size += len(part)
            assert resident_bytes() - before < 150_000_000
    assert size == 2 * sum(count * (digits + 1) for digits, count in DIGITS_TO_20_000_000.items())


DIGITS_TO_20_000_000 = {1: 10, **{n: 9 * 10 ** (n - 1) for n in range(2, 8)}, 8: 10_000_000}
"""How many of the numbers below 20,000,000 have how many digits."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_slow_queries_do_not_hold_up_others_until_their_number_is_reached(store: Store, tmp_path: Path) -> None:
    front = HttpFront(store.reader(QueryLimits(concurrent_max=3)), tmp_path)
    front.start()
    endpoint = read_endpoint(tmp_path)
    assert endpoint is not None
    with ThreadPoolExecutor() as pool:
        slow = [pool.submit(ask, endpoint, f"SELECT sleep(3), {n}") for n in range(2)]
        eventually(lambda: running(store, "sleep") == 2)
        assert ask(endpoint, "SELECT 1").text == "1\n"
        assert not any(future.done() for future in slow)
        more = [pool.submit(ask, endpoint, f"SELECT {n}") for n in range(20)]
        assert [future.result().text for future in more] == [f"{n}\n" for n in range(20)]
        assert [future.result().text for future in slow] == [f"0\t{n}\n" for n in range(2)]
    front.close()


def test_more_than_a_number_of_waiting_queries_are_refused_with_a_status_that_clients_repeat(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_front, "WAITING_MAX", 2)
    front = HttpFront(store.reader(QueryLimits(concurrent_max=1)), tmp_path)
    front.start()
    endpoint = read_endpoint(tmp_path)
    assert endpoint is not None
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(ask, endpoint, "SELECT sleep(2)") for _ in range(2)]
        eventually(lambda: front._asked == 2)
        refused = ask(endpoint, "SELECT 1")
        assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
        assert [future.result().status_code for future in waiting] == [200, 200]
    front.close()


def test_closing_ends_the_queries_that_run(store: Store, tmp_path: Path) -> None:
    front = HttpFront(store.reader(), tmp_path)
    front.start()
    endpoint = read_endpoint(tmp_path)
    assert endpoint is not None
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, endpoint, FOREVER)
        eventually(lambda: running(store, "sipHash64") == 1)
        front.close()
        assert running(store, "sipHash64") == 0
        assert "QUERY_WAS_CANCELLED" in asked.result(30).text


def test_half_a_request_holds_nobody_up(endpoint: Endpoint) -> None:
    with socket.create_connection((endpoint.host, endpoint.port)) as half:
        half.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nSELECT")
        assert ask(endpoint, "SELECT 1").text == "1\n"


def test_answers_leave_at_once(store: Store, tmp_path: Path) -> None:
    """Without the protocol on the socket, asyncio leaves Nagle's algorithm on, which costs 40 ms an answer."""
    front = HttpFront(store.reader(), tmp_path)
    front.start()
    eventually(lambda: front._server.started)
    assert [listening.proto for listening in front._server.servers[0].sockets] == [socket.IPPROTO_TCP]
    front.close()
