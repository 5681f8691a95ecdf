"""A pipeline that reads another one's events, on the command line: both run, and both are asked, in one data folder."""

import json
from typing import Any

from tests.e2e.conftest import Shell, start_dev

BILLING = '''
from collections.abc import Iterator
from typing import Self

from magnetar import Aggregate, Command, Event, Meta, Pipeline, Rows, Sql
from shop import Bought, shop


class Charge(Command):
    cents: int


class Charged(Event):
    cents: int


class Invoice(Aggregate):
    def execute(self, command: Charge) -> Charged:
        return Charged(command.cents)

    def apply(self, event: Charged) -> Self:
        return self


class Entry(Rows):
    """What was bought, and what was charged for it."""

    what: str
    count: int

    @classmethod
    def project(cls, event: Bought | Charged, meta: Meta) -> Iterator[Self]:
        match event:
            case Bought(sku, pieces):
                yield cls(sku, pieces)
            case Charged(cents):
                yield cls("charged", cents)


class Sold(Sql):
    select = "SELECT sum(pieces) AS pieces FROM shop.Bought"
    pieces: int


billing = Pipeline("billing", aggregates=[Invoice], projections=[Entry, Sold], partitions=4, reads=[shop])
'''


def told(shell: Shell, *arguments: str) -> Any:
    ran = shell.run(*arguments, "--json")
    assert ran.returncode == 0, ran
    return json.loads(ran.stdout)


def test_both_run_and_are_asked_in_one_data_folder(shop: Shell) -> None:
    (shop.folder / "billing.py").write_text(BILLING)
    start_dev(shop, "billing")
    assert "on 4 partitions, and what it reads: shop, data in" in (shop.folder / "dev.log").read_text()
    bought = ""
    for n in range(1, 4):
        bought = told(shop, "ask", "shop", "Order", "1", "Buy", '{"sku": "tea", "pieces": 2}')["position"]
        charged = told(shop, "ask", "billing", "Invoice", "1", "Charge", '{"cents": 300}')["position"]
        query = "SELECT what, count() AS n FROM billing.entry GROUP BY what ORDER BY what"
        ran = shop.run("query", query, "--format", "csv", "--after", bought, "--after", charged)
        assert (ran.returncode, ran.stdout.splitlines()[1:]) == (0, [f'"charged",{n}', f'"tea",{n}']), ran
    ran = shop.run("query", "SELECT pieces FROM billing.sold", "--format", "jsonl", "--after", bought)
    assert json.loads(ran.stdout) == {"pieces": 6}, ran

    found = {(row["projection"], row["aggregate"]): row for row in told(shop, "status", "billing")["projections"]}
    assert (found["entry", "shop/Order"]["commits"], found["entry", "shop/Order"]["behind"]) == (3, 0)
    rebuilt = shop.run("rebuild", "billing", "Entry")
    assert rebuilt.returncode == 0, rebuilt
    assert shop.run("rebuild", "shop", "Order").returncode == 0
    assert {row["generation"] for row in told(shop, "status", "billing")["projections"]} == {1, 2}
    ran = shop.run("query", "SELECT sum(count) AS n FROM billing.entry", "--format", "jsonl")
    assert json.loads(ran.stdout) == {"n": 906}, ran
    same = shop.run("diff", "billing")
    assert same.returncode == 0, same
    shop.close()
    assert {row["behind"] for row in told(shop, "status", "billing")["projections"]} == {0}
