"""Quarantined events on the command line: listed, let in once the code is mended, or given up for a reason."""

import json
from typing import Any

from tests.e2e.conftest import Shell, start_dev

FOLD = '''
from magnetar import Fold


class Basket(Fold):
    """What is in each basket."""

    pieces: int = 0
    names: tuple[str, ...] = ()

    def apply(self, event: Bought) -> Self:
        if event.sku in ("pot", "pan"):
            raise ValueError(f"no {event.sku}")
        return self.replace(pieces=self.pieces + event.pieces, names=(*self.names, event.sku))


shop = Pipeline("shop", aggregates=[Order], projections=[BestSellers, Basket])
'''


def told(shell: Shell, *arguments: str, code: int = 0) -> Any:
    ran = shell.run(*arguments, "--json")
    assert ran.returncode == code, ran
    return json.loads(ran.stdout)


def baskets(shell: Shell) -> dict[str, list[str]]:
    ran = shell.run("query", "SELECT _id, names FROM shop.basket ORDER BY _id", "--format", "jsonl")
    assert ran.returncode == 0, ran
    return {row["_id"]: row["names"] for row in map(json.loads, ran.stdout.splitlines())}


def test_an_event_is_kept_back_with_those_behind_it_and_let_in_or_given_up(shop: Shell) -> None:
    file = shop.folder / "shop.py"
    text = file.read_text()
    file.write_text(text[: text.index("shop = Pipeline")] + FOLD)
    start_dev(shop)
    positions = []
    for id, sku in (("1", "tea"), ("1", "pot"), ("2", "pan"), ("1", "cup"), ("3", "tea")):
        asked = told(shop, "ask", "shop", "Order", id, "Buy", json.dumps({"sku": sku, "pieces": 1}))
        positions.append(asked["position"])
    shop.eventually(lambda: len(told(shop, "quarantined", "shop")) == 2, "two aggregates are quarantined")
    shop.eventually(lambda: baskets(shop) == {"1": ["tea"], "3": ["tea"]}, "the others go on")
    for position, why in ((positions[1], "ValueError: no pot"), (positions[3], "One before it was raised on")):
        lacking = shop.run("query", "SELECT 1", "--after", position, "--fail")
        assert (lacking.returncode, "is kept in quarantine" in lacking.stderr, why in lacking.stderr) == (3, True, True)
    assert shop.run("query", "SELECT 1", "--after", positions[0], "--after", positions[4], "--fail").returncode == 0
    people = shop.run("quarantined", "shop").stdout
    assert "ValueError: no pot" in people
    assert "3 events of 2 aggregates in quarantine" in shop.run("status", "shop").stdout
    found = {each["id"]: each for each in told(shop, "quarantined", "shop")}
    assert (found["1"]["version"], found["1"]["events"], found["2"]["events"]) == (2, 2, 1)

    assert shop.run("quarantined", "shop", "retry", "Basket", "1").returncode == 11
    assert shop.run("quarantined", "shop", "drop", "Basket", "2").returncode == 2
    dropped = shop.run("quarantined", "shop", "drop", "Basket", "2", "--reason", "a test", "--actor", "ann")
    assert (dropped.returncode, "version 1 dropped" in dropped.stdout) == (0, True), dropped

    shop.close()
    file.write_text(file.read_text().replace('("pot", "pan")', "()"))
    raising_the_revision = "    revision = 2\n    pieces: int = 0\n    names"
    file.write_text(file.read_text().replace("    pieces: int = 0\n    names", raising_the_revision))
    outgrown = shop.run("quarantined", "shop", "retry", "--all")
    assert (outgrown.returncode, "has changed since its table was filled" in outgrown.stderr) == (2, True), outgrown
    assert "magnetar rebuild" in outgrown.stderr
    file.write_text(file.read_text().replace("    revision = 2\n", ""))
    released = shop.run("quarantined", "shop", "retry", "--all")
    assert (released.returncode, released.stdout) == (0, "Basket 1: released up to version 3\n"), released
    assert shop.run("quarantined", "shop").stdout == "Nothing is quarantined.\n"
    assert baskets(shop) == {"1": ["tea", "pot", "cup"], "3": ["tea"]}

    assert told(shop, "status", "shop")["rebuild_due"] == []
    file.write_text(file.read_text().replace("    pieces: int = 0\n    names", raising_the_revision))
    assert told(shop, "status", "shop")["rebuild_due"] == ["Basket"]
    assert "Basket is shown as older code has it: magnetar rebuild shop --changed" in shop.run("status", "shop").stdout
