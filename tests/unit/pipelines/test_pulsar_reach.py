"""Whether somebody listens where the service URL says; tests/pulsar asks whether it is a broker."""

import re
import socket
from collections.abc import Iterator

import pytest
from magnetar.pipelines.logs.pulsar_reach import check_answers
from magnetar.schemas import LogUnavailable

from tests.pulsar_rig import free_ports


@pytest.fixture
def port() -> Iterator[int]:
    """One on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    "url", ["pulsar://127.0.0.1:{}", "pulsar+ssl://127.0.0.1:{}/", "pulsar://127.0.0.1:1,localhost:{}"]
)
def test_one_address_at_which_somebody_listens_is_enough(port: int, url: str) -> None:
    check_answers(url.format(port), None, {})


def test_an_address_at_which_nobody_listens_is_named_with_the_setting_and_the_value() -> None:
    (free,) = free_ports(1)
    url = f"pulsar://127.0.0.1:{free},localhost:{free}"
    with pytest.raises(
        LogUnavailable, match=rf"No broker answers at {re.escape(url)}.*: Connection refused"
    ) as refused:
        check_answers(url, None, {})
    assert "Correct MAGNETAR_BROKER: the service URL" in refused.value.cure
    assert "chart" not in refused.value.cure


@pytest.mark.parametrize("address", ["no-such-host.invalid:6650", "127.0.0.1:99999", "127.0.0.1:none"])
def test_an_address_that_can_be_none_is_named(address: str) -> None:
    with pytest.raises(LogUnavailable, match=rf"No broker answers at pulsar://{address}"):
        check_answers(f"pulsar://{address}", None, {})
