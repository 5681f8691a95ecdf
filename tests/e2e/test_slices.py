"""`rebuild --since --until` on the command line: a slice of history beside what is shown."""

import json
import threading
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell, start_dev

SALES = """

class Sale(Rows):
    sku: str

    @classmethod
    def project(cls, event: Bought) -> list[Self]:
        return [cls(event.sku)]


class Basket(Fold):
    pieces: int = 0

    def apply(self, event: Bought) -> Self:
        return self.replace(pieces=self.pieces + event.pieces)
"""


def with_tables(shell: Shell) -> None:
    file: Path = shell.folder / "shop.py"
    text = file.read_text().replace("Pipeline, Rejection, Sql", "Fold, Pipeline, Rejection, Rows, Sql")
    before, pipeline = text.split("\nshop = ")
    file.write_text(f"{before}{SALES}\n\nshop = {pipeline.replace('[BestSellers]', '[BestSellers, Sale, Basket]')}")


def bought(shell: Shell, id: str, sku: str) -> str:
    """Returns the position."""
    answer = shell.run("ask", "shop", "Order", id, "Buy", json.dumps({"sku": sku, "pieces": 1}))
    assert answer.returncode == 0, answer
    return answer.stdout.rpartition(", ")[2].strip().removesuffix(")")


def asked(shell: Shell, sql: str, *after: str) -> list[Any]:
    answer = shell.run("query", sql, "--format", "jsonl", *(each for place in after for each in ("--after", place)))
    assert answer.returncode == 0, answer
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_a_slice_is_filled_and_dropped_while_the_pipeline_runs_and_while_it_does_not(shop: Shell) -> None:
    with_tables(shop)
    start_dev(shop)

    bought(shop, "1", "tea")
    cup = bought(shop, "2", "cup")
    (second,) = asked(shop, "SELECT toString(max(_at)) AS at FROM shop.sale WHERE sku = 'cup'", cup)
    last = [bought(shop, "3", "pot")]
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            last.append(bought(shop, "3", "pot"))

    live = threading.Thread(target=go_on)
    live.start()
    try:
        slice_of_it = shop.run("rebuild", "shop", "Sale", "--since", second["at"], "--until", second["at"])
        then = shop.run("rebuild", "shop", "Sale", "Basket", "--until", second["at"], "--json")
    finally:
        is_over.set()
        live.join()
    assert slice_of_it.returncode == 0, slice_of_it
    assert slice_of_it.stdout == (
        "Sale: 1 row in shop.sale__scratch, beside those that are shown; magnetar rebuild shop Sale "
        "--drop-scratch removes them.\n"
    )
    assert [(each["projection"], each["rows"]) for each in json.loads(then.stdout)] == [("Sale", 2), ("Basket", 2)]
    assert {row["sku"] for row in asked(shop, "SELECT sku FROM shop.sale", last[-1])} == {"tea", "cup", "pot"}
    assert {row["sku"] for row in asked(shop, "SELECT sku FROM shop.sale__scratch")} == {"tea", "cup"}
    shop.close()

    alone = shop.run("rebuild", "shop", "Sale", "--since", second["at"])
    assert alone.returncode == 0, alone
    assert {row["sku"] for row in asked(shop, "SELECT sku FROM shop.sale__scratch")} == {"cup", "pot"}
    assert shop.run("rebuild", "shop", "Sale", "--drop-scratch").stdout == "shop.sale__scratch is gone.\n"
    assert shop.run("query", "SELECT * FROM shop.sale__scratch").returncode != 0
    assert len(asked(shop, "SELECT * FROM shop.basket")) == 3
    assert [each.name for each in (shop.folder / ".magnetar").iterdir() if each.name.startswith("scratch")] == []


def test_what_has_no_slice_is_refused_with_its_cure(shop: Shell) -> None:
    with_tables(shop)
    for arguments, said in (
        (("Basket", "--since", "2026-01-01"), "Leave --since away"),
        (("Order", "--until", "2026-01-01"), "name a projection that is a table"),
        (("--until", "2026-01-01"), "Name one or more that are tables"),
        (("Sale", "--until", "2026-01-01", "--rollback"), "go with none of the other options"),
        (("Sale", "--until", "2026-01-01", "--drop-scratch"), "go with none of the other options"),
        (("Sale", "--since", "yesterday"), "is not a time"),
    ):
        refused = shop.run("rebuild", "shop", *arguments)
        assert (refused.returncode, said in refused.stderr) == (2, True), (arguments, refused)
