"""The command line on a real Pulsar: the output in docs/pulsar.md is what it prints."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Shell
from tests.e2e.readme import write_shop
from tests.pulsar_rig import Existing

DOCS = Path(__file__).resolve().parents[2] / "docs" / "pulsar.md"


@pytest.fixture
def shop(broker: Existing, tmp_path: Path) -> Iterator[Shell]:
    """A terminal in a folder with the README's pipeline, and a tenant of its own."""
    write_shop(tmp_path)
    shell = Shell(tmp_path)
    shell.environment |= {
        "MAGNETAR_BROKER": broker.service_url,
        "MAGNETAR_BROKER_ADMIN": broker.admin_url,
        "MAGNETAR_TENANT": f"t{uuid.uuid4().hex[:12]}",
    }
    yield shell
    shell.close()


def printed(shell: Shell, command: str, *, code: int = 0) -> str:
    """What a command prints, with the docs' tenant."""
    ran = shell.run(command, "shop")
    assert ran.returncode == code, ran.stderr
    return f"$ magnetar {command} shop\n{ran.stdout}".replace(shell.environment["MAGNETAR_TENANT"], "acme")


def test_a_default_standalone_is_found_wanting_then_provisioned_then_clean(shop: Shell) -> None:
    first, planned, last, refused = re.findall(r"```console\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert printed(shop, "doctor", code=3) == first
    assert printed(shop, "plan") == planned
    assert "Nothing is left to do." in printed(shop, "provision")
    assert printed(shop, "doctor") == last
    assert "Nothing was to be done." in printed(shop, "provision")
    module = shop.folder / "shop.py"
    text = module.read_text()
    module.write_text(
        text.replace(
            "class Bought(Event):\n    sku: str\n    pieces: int",
            "class Bought(Event):\n    sku: str\n    pieces: float",
        ).replace("    sold: int", "    sold: float")
    )
    assert printed(shop, "plan", code=2) == refused
    ran = shop.run("run", "shop")
    assert ran.returncode == 2
    assert "Bought.pieces: was int, is float." in ran.stderr


def test_a_worker_does_not_start_where_the_log_would_be_lost(shop: Shell, broker: Existing) -> None:
    printed(shop, "provision")
    namespace = f"{broker.admin_url}/admin/v2/namespaces/{shop.environment['MAGNETAR_TENANT']}/shop"
    httpx.post(
        f"{namespace}/inactiveTopicPolicies",
        json={
            "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
            "maxInactiveDurationSeconds": 60,
            "deleteWhileInactive": True,
        },
    ).raise_for_status()
    ran = shop.run("run", "shop")
    assert ran.returncode == 3
    assert "The pipeline shop is not safe here" in ran.stderr
    assert "deletion of inactive topics is on, and must be off" in ran.stderr
    assert "partition taken" not in ran.stderr


def test_a_worker_that_may_makes_what_is_missing_and_answers(shop: Shell, broker: Existing) -> None:
    shop.environment["MAGNETAR_TENANT"] = broker.new_tenant()
    shop.start("run", "shop")
    shop.eventually(lambda: "Nothing is to be done." in shop.run("plan", "shop").stdout, "the worker has provisioned")
    asked = shop.run("ask", "shop", "Order", "42", "Buy", '{"sku": "tea", "pieces": 2}', "--timeout", "120")
    assert asked.stdout == "accepted: Bought(sku='tea', pieces=2)  (version 1, shop/Order/6/1)\n", asked.stderr
