"""The command line on a real Pulsar: the output in docs/pulsar.md is what it prints."""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Shell
from tests.e2e.readme import write_shop
from tests.pulsar_rig import Existing, distribution, free_ports

QUORUM = {"bookkeeperEnsemble": 1, "bookkeeperWriteQuorum": 1, "bookkeeperAckQuorum": 1}
INACTIVE = {
    "inactiveTopicDeleteMode": "delete_when_no_subscriptions",
    "maxInactiveDurationSeconds": 60,
    "deleteWhileInactive": True,
}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "pulsar.md"


@pytest.fixture
def shop(broker: Existing, tmp_path: Path) -> Iterator[Shell]:
    """A terminal in a folder with the README's pipeline, and a tenant of its own."""
    write_shop(tmp_path)
    shell = Shell(tmp_path)
    shell.environment |= broker.environment(f"t{uuid.uuid4().hex[:12]}")
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


def type_mends(shell: Shell, broker: Existing, subject: str) -> None:
    """Types what the doctor says of the namespace or of a topic into Pulsar's own shell."""
    findings = json.loads(shell.run("doctor", "shop", "--json").stdout)
    mends = [finding["mend"] for finding in findings if finding["subject"].startswith(subject)]
    script, config = shell.folder / "mends", shell.folder / "client.conf"
    script.write_text("".join(f"{m.replace('pulsar-', '', 1)}\n" for m in mends if m.startswith("pulsar-admin ")))
    config.write_text(f"webServiceUrl={broker.admin_url}\n")
    program = distribution() / "bin" / "pulsar-shell"  # says that nothing failed, whatever did
    subprocess.run([program, "-c", config, "-f", script, "-np"], capture_output=True, check=True, timeout=120)


def test_what_the_doctor_says_mends_it_as_pulsars_own_shell_takes_it(shop: Shell, broker: Existing) -> None:
    tenant, admin = shop.environment["MAGNETAR_TENANT"], f"{broker.admin_url}/admin/v2"
    clusters = httpx.get(f"{admin}/clusters").json()
    httpx.put(f"{admin}/tenants/{tenant}", json={"allowedClusters": clusters}).raise_for_status()
    httpx.put(f"{admin}/namespaces/{tenant}/shop", json={}).raise_for_status()
    type_mends(shop, broker, "namespace ")
    planned = shop.run("plan", "shop").stdout
    assert "~ namespace" not in planned, planned
    assert "safe, but not all there: `magnetar provision` makes what is missing." in shop.run("doctor", "shop").stdout
    printed(shop, "provision")
    for policy, worse in (
        ("inactiveTopicPolicies", INACTIVE),
        ("messageTTL?messageTTL=60", None),
        ("persistence", {**QUORUM, "managedLedgerMaxMarkDeleteRate": 0.1}),
    ):
        topic = f"{admin}/persistent/{tenant}/shop/order-events"
        httpx.post(f"{topic}/{policy}", json=worse).raise_for_status()
    assert "2 dangerous, 1 warnings" in shop.run("doctor", "shop").stdout
    type_mends(shop, broker, "topic ")
    assert "0 dangerous, 0 warnings" in printed(shop, "doctor")


def test_a_worker_does_not_start_where_the_log_would_be_lost(shop: Shell, broker: Existing) -> None:
    printed(shop, "provision")
    namespace = f"{broker.admin_url}/admin/v2/namespaces/{shop.environment['MAGNETAR_TENANT']}/shop"
    httpx.post(
        f"{namespace}/inactiveTopicPolicies",
        json=INACTIVE,
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


def test_a_quota_by_age_is_found_and_what_the_doctor_says_takes_it_away(shop: Shell, broker: Existing) -> None:
    assert shop.run("provision", "shop").returncode == 0
    namespace = f"{shop.environment['MAGNETAR_TENANT']}/shop"
    quota = {"limitSize": -1, "limitTime": 3600, "policy": "consumer_backlog_eviction"}
    path = f"{broker.admin_url}/admin/v2/namespaces/{namespace}/backlogQuota?backlogQuotaType=message_age"
    httpx.post(path, json=quota, timeout=60).raise_for_status()
    assert "backlog quota by age is 3600 s, then consumer_backlog_eviction, must be no" in printed(
        shop, "doctor", code=3
    )
    ran = shop.run("run", "shop")
    assert ran.returncode == 3
    assert "backlog quota by age is 3600 s" in ran.stderr
    type_mends(shop, broker, f"namespace {namespace}")
    assert "0 dangerous, 0 warnings" in printed(shop, "doctor")


def test_rights_that_roles_lack_are_missed_until_they_are_given(shop: Shell) -> None:
    assert shop.run("provision", "shop").returncode == 0
    shop.environment |= {"MAGNETAR_WORKER_ROLE": "{context}-{aggregate}", "MAGNETAR_CLIENT_ROLE": "web"}
    said = printed(shop, "doctor")
    assert "topic acme/shop/order-events: the right of shop-order to consume and produce is missing, must be" in said
    assert "topic acme/shop/order-commands: the right of web to produce is missing, must be given" in said
    assert "namespace acme/magnetar-replies: the right of web to consume is missing, must be given" in said
    assert "7 warnings" in said
    assert "`magnetar provision` makes what is missing" in said
    assert shop.run("provision", "shop").returncode == 0
    assert "0 warnings" in printed(shop, "doctor")


def test_a_service_url_at_which_there_is_no_broker_is_named_by_all_that_look(shop: Shell, broker: Existing) -> None:
    (free,) = free_ports(1)
    shop.environment["MAGNETAR_BROKER"] = f"pulsar://127.0.0.1:{free}"
    buy = ("Order", "1", "Buy", '{"sku": "tea", "pieces": 2}')
    for command, *more in (("plan",), ("provision",), ("doctor",), ("status",), ("ask", *buy)):
        refused = shop.run(command, "shop", *more)
        assert refused.returncode == 3, command
        assert f"No broker answers at pulsar://127.0.0.1:{free}" in refused.stderr, command
        assert "Correct MAGNETAR_BROKER: the service URL" in refused.stderr, command
    shop.environment["MAGNETAR_BROKER"] = broker.service_url
    printed(shop, "provision")
    shop.environment["MAGNETAR_BROKER"] = broker.admin_url.replace("http://", "pulsar://")  # somebody listens there
    for command in ("plan", "provision", "doctor"):
        refused = shop.run(command, "shop")
        assert refused.returncode == 3, command
        assert "No broker answers at" in refused.stderr, command
