"""The admin API of a cluster: a broker sends callers on to the one that looks after a topic."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from magnetar.pipelines.logs.pulsar_access import Access, Token
from magnetar.pipelines.logs.pulsar_admin import PulsarAdmin
from magnetar.schemas import LogUnavailable


@contextmanager
def answering(status: int, *, location: str = "") -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server that gives one answer to all, its URL, and what was asked: method, path, token."""
    asked: list[tuple[str, str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length).decode()
            asked.append((self.path, body, self.headers.get("Authorization", "")))
            self.send_response(status)
            if location:
                self.send_header("Location", f"{location}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HANG(self) -> None:
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_call_goes_where_the_broker_sends_it_with_its_body_and_the_token() -> None:
    with answering(204) as (there, asked), answering(307, location=there) as (here, _):
        admin = PulsarAdmin(here, Access(token=Token(text="secret")))
        admin.call("PUT", "/persistent/a/b/c/partitions", 8)
        admin.close()
        assert asked == [("/admin/v2/persistent/a/b/c/partitions", "8", "Bearer secret")]


def test_who_hangs_up_is_named_with_the_setting_and_its_default() -> None:
    with answering(200) as (here, _):
        admin = PulsarAdmin(here, Access())
        with pytest.raises(LogUnavailable) as refused:
            admin.call("HANG", "/brokers/version")
        admin.close()
    assert refused.value.what.endswith("does not answer: Server disconnected without sending a response.")
    assert "MAGNETAR_BROKER_ADMIN (without it, it is http://127.0.0.1:8080)" in refused.value.cure


def test_the_token_does_not_go_over_another_kind_of_connection() -> None:
    with answering(204) as (there, asked):
        elsewhere = there.replace("http://", "https://")
        with answering(307, location=elsewhere) as (here, _):
            admin = PulsarAdmin(here, Access(token=Token(text="secret")))
            with pytest.raises(LogUnavailable, match=f"sends us to {elsewhere}, for PUT /x") as refused:
                admin.call("PUT", "/x", 8)
            assert "Let MAGNETAR_BROKER_ADMIN begin with https://" in refused.value.cure
            admin.close()
        assert asked == []
