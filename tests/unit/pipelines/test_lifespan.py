"""The client of an ASGI application, from its start to its end."""

import asyncio
from collections.abc import Iterator

import pytest
from magnetar.schemas import SettingsError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from magnetar.testing import Embedded
from tests.unit.pipelines.purses import Pay, Place, Purse, purses


async def pay(request: Request) -> JSONResponse:
    """Let a purse pay one."""
    receipt = await purses.client.ask(Purse, request.path_params["id"], Pay(1))
    return JSONResponse({"version": receipt.version})


@pytest.fixture
def running() -> Iterator[Embedded]:
    with purses.embedded() as running:
        yield running


def application() -> Starlette:
    return Starlette(routes=[Route("/{id}", pay, methods=["POST"])], lifespan=purses.lifespan)


def test_an_applications_handlers_ask_with_the_pipelines_client(running: Embedded) -> None:
    with TestClient(application()) as http:
        assert [http.post("/a").json() for _ in range(3)] == [{"version": 1}, {"version": 2}, {"version": 3}]


def test_outside_of_an_application_there_is_no_client(running: Embedded) -> None:
    with pytest.raises(SettingsError, match=r"FastAPI\(lifespan=purses.lifespan\)"):
        _ = purses.client
    with TestClient(application()):
        assert purses.client is purses.client
    with pytest.raises(SettingsError, match="only while an application runs"):
        _ = purses.client


def test_applications_of_one_process_share_the_client_and_the_last_one_closes_it(running: Embedded) -> None:
    with TestClient(application()) as one:
        with TestClient(application()) as two:
            shared = purses.client
            assert two.post("/b").json() == {"version": 1}
        assert purses.client is shared
        assert one.post("/b").json() == {"version": 2}
    with pytest.raises(SettingsError, match="The client is closed"):
        asyncio.run(shared.ask(Purse, "b", Pay(1)))


def test_an_application_that_fails_closes_the_client_too(running: Embedded) -> None:
    async def fail() -> None:
        async with purses.lifespan():
            await purses.client.send(Purse, "c", Pay(1))
            raise RuntimeError("the application")

    with pytest.raises(RuntimeError, match="the application"):
        asyncio.run(fail())
    with pytest.raises(SettingsError):
        _ = purses.client


def test_the_client_goes_where_the_environment_says(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path_factory.mktemp("place") / "data")
    monkeypatch.setenv("MAGNETAR_DATA", str(place.folder))

    async def send() -> None:
        async with purses.lifespan():
            await purses.client.send(Purse, "d", Pay(1))

    asyncio.run(send())
    assert place.commands() == 1
