"""The engine's HTTP protocol on loopback."""

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from magnetar.projections.http_front import HttpFront
from magnetar.projections.query import Endpoint, ask_endpoint, read_endpoint
from magnetar.projections.store import Store
from magnetar.schemas import QueryRefused


@pytest.fixture
def endpoint(store: Store, tmp_path: Path) -> Iterator[Endpoint]:
    front = HttpFront(store.reader(), tmp_path)
    front.start()
    found = read_endpoint(tmp_path)
    assert found is not None
    assert stat.S_IMODE((tmp_path / "query-endpoint.json").stat().st_mode) == 0o600
    yield found
    front.close()
    assert read_endpoint(tmp_path) is None


def test_it_listens_on_loopback_alone(endpoint: Endpoint) -> None:
    assert httpx.URL(endpoint.url).host == "127.0.0.1"


def test_a_query_is_answered_in_the_format_asked_for(endpoint: Endpoint) -> None:
    assert ask_endpoint(endpoint, "SELECT 1 AS x, 'ü' AS y", "JSONEachRow") == '{"x":1,"y":"ü"}\n'.encode()


@pytest.mark.parametrize("token", ["", "wrong", "ü"])
def test_without_the_token_nothing_is_answered(endpoint: Endpoint, token: str) -> None:
    response = httpx.post(endpoint.url, content=b"SELECT 1", headers={b"X-ClickHouse-Key": token.encode()})
    assert response.status_code == httpx.codes.UNAUTHORIZED


def test_the_token_is_taken_as_a_password_too(endpoint: Endpoint) -> None:
    response = httpx.get(endpoint.url, params={"query": "SELECT 2"}, auth=("default", endpoint.token))
    assert response.text == "2\n"


def test_parameters_are_bound(endpoint: Endpoint) -> None:
    response = httpx.post(
        endpoint.url,
        params={"param_x": "it's"},
        content=b"SELECT {x:String}",
        headers={"Authorization": f"Bearer {endpoint.token}"},
    )
    assert response.text == "it\\'s\n"


def test_an_error_comes_in_the_engines_words(endpoint: Endpoint) -> None:
    with pytest.raises(QueryRefused, match="UNKNOWN_TABLE"):
        ask_endpoint(endpoint, "SELECT * FROM nope", "JSON")
    with pytest.raises(QueryRefused, match="READONLY"):
        ask_endpoint(endpoint, "CREATE DATABASE x", "JSON")
