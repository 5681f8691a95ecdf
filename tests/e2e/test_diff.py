"""What a change of the code does to history, on the command line."""

import json
from pathlib import Path

from tests.e2e.conftest import Shell, start_dev


def edit(shell: Shell, before: str, after: str) -> None:
    file: Path = shell.folder / "shop.py"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_a_changed_rule_is_seen_while_it_runs_and_afterwards(shop: Shell) -> None:
    start_dev(shop)
    for id, pieces in (("1", 2), ("2", 30)):
        fields = json.dumps({"sku": "tea", "pieces": pieces})
        assert shop.run("ask", "shop", "Order", id, "Buy", fields).returncode == 0
    same = shop.run("diff", "shop")
    assert (same.returncode, "Nothing differs." in same.stdout) == (0, True), same
    shop.close()
    line = "            case Buy(sku, pieces):\n"
    edit(shop, line, f"            case Buy(pieces=pieces) if pieces > 10:\n                return Empty()\n{line}")
    found = shop.run("diff", "shop", "--json")
    assert found.returncode == 1, found
    (order,) = json.loads(found.stdout)["aggregates"]
    assert [(each["recorded"], each["now"], each["commands"]) for each in order["otherwise"]] == [
        ("Bought", "rejected: Empty", 1)
    ]
    people = shop.run("diff", "shop", "Order")
    assert people.returncode == 1
    assert "Order: 2 commands decided once more, of 2 commits" in people.stdout
    assert "Buy(sku='tea', pieces=30)" in people.stdout
    sampled = shop.run("diff", "shop", "--sample", "1")
    assert "of each aggregate, 1 commit" in sampled.stdout
    unknown = shop.run("diff", "shop", "Nobody")
    assert (unknown.returncode, "Nobody" in unknown.stderr) == (2, True), unknown
