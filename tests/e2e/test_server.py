"""The command line where the tables are on a ClickHouse server. The server is tests/clickhouse_server.py's."""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from magnetar.projections.store import Store

from tests.clickhouse_server import READER, Running, clickhouse
from tests.e2e.conftest import Shell, start_dev
from tests.e2e.test_quarantined import FOLD
from tests.helm.conftest import Chart, chart, minimal
from tests.helm.in_pod import settings_in_pod
from tests.pulsar_secured import Authority

__all__ = ["chart"]  # a fixture of theirs


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, shop: Shell) -> Iterator[Running]:
    """A server, and a terminal whose environment leads to it."""
    with clickhouse(tmp_path_factory.mktemp("server")) as running:
        shop.environment |= running.environment
        yield running


def told(shell: Shell, *arguments: str) -> Any:
    ran = shell.run(*arguments)
    assert ran.returncode == 0, ran
    return [json.loads(line) for line in ran.stdout.splitlines()]


def buy(shell: Shell, *bought: tuple[str, str]) -> list[str]:
    """The positions of the commits."""
    found = []
    for id, sku in bought:
        ran = shell.run("ask", "shop", "Order", id, "Buy", json.dumps({"sku": sku, "pieces": 1}), "--json")
        assert ran.returncode == 0, ran
        found.append(json.loads(ran.stdout)["position"])
    return found


def wait_for(shell: Shell, sql: str, wanted: list[dict[str, Any]]) -> None:
    def holds() -> bool:
        ran = shell.run("query", sql, "--format", "jsonl")
        return ran.returncode == 0 and [json.loads(line) for line in ran.stdout.splitlines()] == wanted

    shell.eventually(holds, f"{sql}: {wanted}")


def test_rows_come_to_the_server_and_are_rebuilt_and_rolled_back_there(shop: Shell, server: Running) -> None:
    file = shop.folder / "shop.py"
    text = file.read_text()
    file.write_text(text[: text.index("shop = Pipeline")] + FOLD)
    start_dev(shop)
    positions = buy(shop, ("1", "tea"), ("1", "cup"), ("2", "pan"))
    after = [word for position in positions[:2] for word in ("--after", position)]
    sql = "SELECT _id, names FROM shop.basket ORDER BY _id"
    assert told(shop, "query", sql, "--format", "jsonl", *after) == [{"_id": "1", "names": ["tea", "cup"]}]
    assert not (shop.folder / ".magnetar" / "clickhouse").exists()
    assert not (shop.folder / ".magnetar" / "query-endpoint.json").exists()

    (status,) = [json.loads(shop.run("status", "shop", "--json").stdout)]
    assert [each["unmirrored"] for each in status["aggregates"]] == [0]
    shop.eventually(lambda: "no pan" in shop.run("quarantined", "shop").stdout, "an event is kept back")
    dropped = shop.run("quarantined", "shop", "drop", "Basket", "2", "--reason", "a test", "--actor", "ann")
    assert (dropped.returncode, "version 1 dropped" in dropped.stdout) == (0, True), dropped

    (planned,) = told(shop, "rebuild", "shop", "Basket", "--dry-run", "--json")
    (table,) = planned["tables"]
    assert (planned["from"], table["table"], table["events"], table["commits"]) == ("topics", "Basket", 3, 3)
    assert planned["disk_free_bytes"] > table["disk_bytes"] > 0
    for arguments, said in (
        ((), "generation 2 is shown"),
        (("--rollback",), "generation 1 is shown"),
        (("--drop-old",), "generation 1 is shown"),
    ):
        ran = shop.run("rebuild", "shop", "Basket", *arguments)
        assert (ran.returncode, said in ran.stdout) == (0, True), ran
    assert told(shop, "query", sql, "--format", "jsonl") == [{"_id": "1", "names": ["tea", "cup"]}]

    doctor = shop.run("doctor", "shop")
    assert (doctor.returncode, "0 dangerous" in doctor.stdout) == (0, True), doctor
    store = Store(server.endpoint)
    store.command("ALTER TABLE shop.basket__g1 MODIFY SETTING non_replicated_deduplication_window = 7")
    narrowed = shop.run("doctor", "shop")
    assert (narrowed.returncode, "shop.basket__g1: deduplication window is 7" in narrowed.stdout) == (3, True), narrowed
    store.command("ALTER TABLE shop.basket__g1 MODIFY SETTING non_replicated_deduplication_window = 1600")
    store.close()

    sliced = shop.run("rebuild", "shop", "Basket", "--until", datetime.now(UTC).isoformat())
    assert (sliced.returncode, "shop.basket__scratch" in sliced.stdout) == (0, True), sliced
    wait_for(shop, "SELECT names FROM shop.basket__scratch", [{"names": ["tea", "cup"]}])
    assert shop.run("rebuild", "shop", "Basket", "--drop-scratch").returncode == 0
    diff = shop.run("diff", "shop", "Basket")
    assert (diff.returncode, "no pan" in diff.stdout) == (1, True), diff

    server.kill()
    doctor = shop.run("doctor", "shop")
    assert (doctor.returncode, "ClickHouse: server is ClickHouse at" in doctor.stdout) == (3, True), doctor
    refused = shop.run("query", "SELECT 1")
    assert (refused.returncode, f"ClickHouse at {server.endpoint.url} does not answer" in refused.stderr) == (3, True)
    server.start()
    buy(shop, ("3", "tea"))
    wait_for(shop, f"{sql} DESC LIMIT 1", [{"_id": "3", "names": ["tea"]}])
    logged = (shop.folder / "dev.log").read_text()
    assert server.endpoint.token not in logged


def _lines(shell: Shell, command: str) -> list[str]:
    ran = shell.run(command, "shop")
    assert ran.returncode == 0, ran
    return ran.stdout.splitlines()


def test_the_tables_on_a_server_are_planned_and_provisioned(shop: Shell, server: Running) -> None:
    planned = _lines(shop, "plan")
    for line in (
        "+ topic shop/order-events: 16 partitions",
        "+ database magnetar: what projectors write down",
        "+ table magnetar.leases: who may write which partition of which table",
        "+ database shop: tables and views",
        "+ table shop.order__events__g1: the events of Order, one row each",
        "+ view shop.order__events: all events of Order",
        "+ view shop.Bought: the event Bought of Order",
        "+ view shop.freshness: how far each projection is, by aggregate and partition",
        "+ view shop.best_sellers: What sells, by article.",
    ):
        assert line in planned, "\n".join(planned)
    with contextlib.closing(Store(server.endpoint)) as store:
        of_ours = "SELECT count() FROM system.databases WHERE name IN ('magnetar', 'shop')"
        assert store.query(of_ours) == [(0,)], "a plan changes nothing"
        assert _lines(shop, "provision") == [*planned[:-1], "Nothing is left to do."]
        assert store.query(of_ours) == [(2,)]
    assert _lines(shop, "plan") == ["Nothing is to be done."]
    assert _lines(shop, "provision") == ["Nothing was to be done."]
    start_dev(shop)
    buy(shop, ("1", "tea"))
    wait_for(shop, "SELECT sku FROM shop.best_sellers", [{"sku": "tea"}])
    assert _lines(shop, "plan") == ["Nothing is to be done."], "a projector makes what was provisioned, and no other"

    file = shop.folder / "shop.py"
    file.write_text(file.read_text().replace("    pieces: int\n", '    pieces: int\n    note: str = ""\n', 2))
    changed = [
        "~ table shop.order__events__g1: gains column Bought.note String",
        "~ view shop.order__events: its query, columns or comments are others",
        "~ view shop.Bought: its query, columns or comments are others",
    ]
    assert [line for line in _lines(shop, "plan") if line.startswith("~")] == changed
    provisioned = _lines(shop, "provision")
    assert [line for line in provisioned if line.startswith("~")] == changed, "while a projector runs"
    assert _lines(shop, "plan") == ["Nothing is to be done."]
    assert told(shop, "query", "SELECT sku, note FROM shop.Bought", "--format", "jsonl") == [{"sku": "tea", "note": ""}]
    buy(shop, ("2", "tea"))
    wait_for(shop, "SELECT count()::Int32 AS n FROM shop.Bought", [{"n": 2}])


def test_who_may_make_no_tables_is_told_so(shop: Shell, server: Running) -> None:
    shop.environment["MAGNETAR_CLICKHOUSE_USER"] = READER
    assert "+ database shop: tables and views" in _lines(shop, "plan")
    ran = shop.run("provision", "shop")
    assert ran.returncode == 3, ran
    assert "The database magnetar is not made. ClickHouse refused a statement: " in ran.stderr
    assert "`magnetar doctor` says which, with the GRANT that gives it" in ran.stderr


def test_a_projector_starts_on_no_table_that_would_take_an_insert_twice(shop: Shell, server: Running) -> None:
    assert shop.run("provision", "shop").returncode == 0
    narrowed = "ALTER TABLE shop.order__events__g1 MODIFY SETTING non_replicated_deduplication_window = 7"
    with contextlib.closing(Store(server.endpoint)) as store:
        store.command(narrowed)
    ran = shop.run("run", "shop", "--role", "projector", timeout=120)
    assert ran.returncode == 3, ran
    assert "shop.order__events__g1: deduplication window is 7, and must be at least 1600" in ran.stderr, ran
    with contextlib.closing(Store(server.endpoint)) as store:
        assert store.query("SELECT count() FROM magnetar.leases") == [(0,)], "it has begun nothing"
        assert store.query("SELECT name FROM system.tables WHERE name LIKE 'tried%'") == []


def test_a_projector_waits_for_its_server_and_says_so(shop: Shell, server: Running) -> None:
    server.kill()
    start_dev(shop)
    shop.eventually(lambda: "does not let writer ask it" in (shop.folder / "dev.log").read_text(), "it is said")
    buy(shop, ("1", "tea"))
    server.start()
    wait_for(shop, "SELECT sku FROM shop.best_sellers", [{"sku": "tea"}])


def test_a_wrong_password_is_said_at_once_and_not_shown(shop: Shell, server: Running) -> None:
    secret = shop.folder / "password"
    secret.write_text("not-the-password\n")
    del shop.environment["MAGNETAR_CLICKHOUSE_PASSWORD"]
    shop.environment["MAGNETAR_CLICKHOUSE_PASSWORD_FILE"] = str(secret)
    ran = shop.run("run", "shop", "--role", "projector")
    assert ran.returncode == 3, ran
    assert "Authentication failed" in ran.stderr
    assert "MAGNETAR_CLICKHOUSE_USER and MAGNETAR_CLICKHOUSE_PASSWORD_FILE" in ran.stderr
    assert "not-the-password" not in ran.stdout + ran.stderr
    assert server.endpoint.token not in ran.stdout + ran.stderr
    secret.write_text(server.endpoint.token + "\n")
    assert told(shop, "query", "SELECT 1 AS x", "--format", "jsonl") == [{"x": 1}]


def test_a_releases_settings_lead_there_and_an_error_names_the_value_that_is_wrong(
    shop: Shell, chart: Chart, tmp_path: Path
) -> None:
    """By what a projector of the chart finds in its container, with password and authority out of Secrets."""
    authority, other = Authority(tmp_path / "tls"), Authority(tmp_path / "other")
    (tmp_path / "server").mkdir()
    with clickhouse(tmp_path / "server", authority) as server:
        values = {"auth": {"existingSecret": "writer"}, "tls": {"caSecret": "server-tls"}}
        objects = chart.render(minimal(clickhouse=values | {"url": server.endpoint.url, "user": server.endpoint.user}))

        def asked_with(password: str, ca: Authority) -> tuple[int, str]:
            secrets = {"writer": {"password": password}, "server-tls": {"ca.crt": ca.certificate.read_text()}}
            found = settings_in_pod(objects, ("Deployment", "rel-projector"), tmp_path / "mounted", secrets)
            shop.environment |= {name: value for name, value in found.items() if "CLICKHOUSE" in name}
            ran = shop.run("plan", "shop")
            return ran.returncode, ran.stderr or ran.stdout

        assert asked_with(server.endpoint.token, authority)[0] == 0
        code, said = asked_with("not-the-password", authority)
        assert (code, "Authentication failed" in said) == (3, True), said
        value = "clickhouse.auth.existingSecret (the key password of the Secret writer)"
        assert f"MAGNETAR_CLICKHOUSE_PASSWORD_FILE is {value}" in said
        code, said = asked_with(server.endpoint.token, other)
        assert (code, "CERTIFICATE_VERIFY_FAILED" in said) == (3, True), said
        assert "MAGNETAR_CLICKHOUSE_CA is clickhouse.tls.caSecret (the key ca.crt of the Secret server-tls)" in said


def test_the_servers_certificate_is_verified(shop: Shell, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    (tmp_path / "server").mkdir()
    with clickhouse(tmp_path / "server", authority) as server:
        shop.environment |= server.environment
        assert told(shop, "query", "SELECT 1 AS x", "--format", "jsonl") == [{"x": 1}]
        start_dev(shop)
        buy(shop, ("1", "tea"))
        wait_for(shop, "SELECT sku FROM shop.best_sellers", [{"sku": "tea"}])
        shop.close()
        for name, value in (
            ("MAGNETAR_CLICKHOUSE", server.endpoint.url.replace("localhost", "127.0.0.1")),  # not its name
            ("MAGNETAR_CLICKHOUSE_CA", str(Authority(tmp_path / "another").certificate)),
        ):
            shop.environment |= server.environment | {name: value, "MAGNETAR_BROKER_WAIT_SECONDS": "2"}
            for ran in (shop.run("query", "SELECT 1"), shop.run("run", "shop", "--role", "projector")):
                assert (ran.returncode, "CERTIFICATE_VERIFY_FAILED" in ran.stderr) == (3, True), (os.getpid(), ran)
