"""Projectors that feed different tables of one ClickHouse server (which is tests/clickhouse_server.py's)."""

import json
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.clickhouse_server import clickhouse
from tests.e2e.conftest import MAGNETAR, Shell
from tests.e2e.test_quarantined import FOLD
from tests.pulsar_rig import free_ports

PARTITIONS = 4
"""What stands for the server takes its time for each lease, and a swap takes those of all partitions at once."""

GROUPS = {"baskets": ("--table", "Basket"), "rest": ("--without-table", "Basket")}


class Groups:
    """A worker, and a projector for each group."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(zip(GROUPS, free_ports(len(GROUPS)), strict=True))
        shell.start("run", "shop", "--role", "worker")
        for name in GROUPS:
            self.start(name)

    def start(self, name: str) -> None:
        """Start the group's projector, and wait until it is ready."""
        command = [str(MAGNETAR), "run", "shop", "--role", "projector", *GROUPS[name]]
        environment = self._shell.environment | {"MAGNETAR_HEALTH_PORT": str(self._ports[name])}
        with (self._shell.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(command, cwd=self._shell.folder, env=environment, stdout=log, stderr=log)
        self._processes[name] = process
        self._shell.eventually(partial(self._is_ready, name), f"{name} is ready")

    def _is_ready(self, name: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports[name]}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def fed(self, name: str) -> dict[str, int]:
        """By projection, how many partitions the group's projector says that it feeds."""
        text = httpx.get(f"http://127.0.0.1:{self._ports[name]}/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = families["magnetar_table_partitions_fed"].samples
        return {sample.labels["projection"]: int(sample.value) for sample in samples}

    def kill(self, name: str) -> None:
        """kill -9."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait(30)

    def close(self) -> None:
        """End them."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(30)


@pytest.fixture
def groups(tmp_path_factory: pytest.TempPathFactory, shop: Shell) -> Iterator[Groups]:
    """All of them run, on a server to which the terminal's environment leads."""
    file = shop.folder / "shop.py"
    text = file.read_text()
    few = FOLD.replace("Basket])", f"Basket], partitions={PARTITIONS})")
    file.write_text(text[: text.index("shop = Pipeline")] + few)
    with clickhouse(tmp_path_factory.mktemp("server")) as server:
        shop.environment |= server.environment
        assert shop.run("provision", "shop").returncode == 0
        running = Groups(shop)
        yield running
        running.close()


def buy(shell: Shell, *bought: tuple[str, str]) -> None:
    for id, sku in bought:
        ran = shell.run("ask", "shop", "Order", id, "Buy", json.dumps({"sku": sku, "pieces": 1}))
        assert ran.returncode == 0, ran


def rows(shell: Shell, sql: str) -> list[dict[str, Any]]:
    ran = shell.run("query", sql, "--format", "jsonl")
    assert ran.returncode == 0, ran
    return [json.loads(line) for line in ran.stdout.splitlines()]


EVENTS = "SELECT count()::Int32 AS n FROM shop.Bought"
BASKETS = "SELECT _id, names FROM shop.basket ORDER BY _id"
LEASES = "SELECT max(epoch)::Int32 AS epoch, countDistinct(`projection`)::Int32 AS tables FROM magnetar.leases"


def wait_for(shell: Shell, sql: str, wanted: list[dict[str, Any]]) -> None:
    shell.eventually(lambda: rows(shell, sql) == wanted, f"{sql}: {wanted}")


def rebuilt(shell: Shell, *arguments: str) -> str:
    ran = shell.run("rebuild", "shop", *arguments)
    assert ran.returncode == 0, ran
    return ran.stdout


def test_each_table_is_fed_by_its_group_alone_which_rebuilds_it_too(shop: Shell, groups: Groups) -> None:
    buy(shop, ("1", "tea"), ("2", "cup"), ("3", "pan"))
    wait_for(shop, BASKETS, [{"_id": "1", "names": ["tea"]}, {"_id": "2", "names": ["cup"]}])
    wait_for(shop, EVENTS, [{"n": 3}])
    shop.eventually(
        lambda: groups.fed("baskets") == {"Basket": PARTITIONS, "mirror": 0}, "what the baskets' group feeds"
    )
    shop.eventually(lambda: groups.fed("rest") == {"Basket": 0, "mirror": PARTITIONS}, "what the others feed")
    assert rows(shop, LEASES) == [{"epoch": 1, "tables": 2}], "nobody has taken a lease from the other group"

    dropped = shop.run("quarantined", "shop", "drop", "Basket", "3", "--reason", "a test", "--actor", "ann")
    assert (dropped.returncode, "version 1 dropped" in dropped.stdout) == (0, True), dropped
    assert rebuilt(shop, "Basket", "Order").count("generation 2 is shown") == 2
    wait_for(shop, EVENTS, [{"n": 3}])
    assert rebuilt(shop, "Basket", "--rollback").count("generation 1 is shown") == 1
    rebuilt(shop, "--drop-old")
    left = "SELECT extract(name, '(basket|events)__g') AS t, extract(name, '[0-9]$') AS g FROM system.tables "
    left += "WHERE database = 'shop' AND t <> '' ORDER BY ALL"
    wait_for(shop, left, [{"t": "basket", "g": "1"}, {"t": "events", "g": "2"}])


def test_a_group_that_is_gone_is_said_by_the_others_and_goes_on_with_a_rebuild(shop: Shell, groups: Groups) -> None:
    buy(shop, ("1", "tea"))
    wait_for(shop, BASKETS, [{"_id": "1", "names": ["tea"]}])
    groups.kill("baskets")
    buy(shop, ("1", "cup"))
    wait_for(shop, EVENTS, [{"n": 2}])
    assert rows(shop, BASKETS) == [{"_id": "1", "names": ["tea"]}]
    assert groups.fed("rest") == {"Basket": 0, "mirror": PARTITIONS}, "nobody feeds it"
    rebuild = subprocess.Popen([MAGNETAR, "rebuild", "shop", "Basket"], cwd=shop.folder, env=shop.environment)
    wished = "SELECT count()::Int32 AS n FROM magnetar.generations WHERE `projection` = 'Basket'"
    wait_for(shop, wished, [{"n": 1}])
    wait_for(shop, "SELECT count()::Int32 AS n FROM system.tables WHERE name = 'basket__g2'", [{"n": 1}])
    assert rebuild.poll() is None, "the others make its tables, and fill none"
    groups.start("baskets")
    assert rebuild.wait(240) == 0
    wait_for(shop, BASKETS, [{"_id": "1", "names": ["tea", "cup"]}])


REFUSED = {
    "has no aggregate 'Baskets', and no projection with a table": ("--role", "projector", "--table", "Baskets"),
    "The embedded ClickHouse is open in one projector alone": ("--role", "projector", "--table", "Order"),
    "Only projectors feed tables": ("--table", "Order"),
}


@pytest.mark.parametrize(("said", "given"), REFUSED.items(), ids=REFUSED)
def test_tables_that_cannot_be_fed_so_are_refused(shop: Shell, said: str, given: tuple[str, ...]) -> None:
    ran = shop.run("run", "shop", *given)
    assert (ran.returncode, said in ran.stderr) == (2, True), ran
