"""`plan`, `provision` and `doctor` on the embedded log; tests/pulsar has them on a real Pulsar."""

import json
from pathlib import Path

from tests.e2e.conftest import Shell
from tests.e2e.readme import write_shop


def test_a_folder_is_planned_provisioned_and_examined(shell: Shell) -> None:
    write_shop(shell.folder)
    planned = shell.run("plan", "shop")
    assert planned.stdout.splitlines() == [
        "+ topic shop/order-events: 16 partitions",
        "+ topic shop/order-checkpoints: 16 partitions",
        "+ topic shop/order-commands: 16 partitions",
        "3 steps.",
    ]
    assert not (Path(shell.folder) / ".magnetar").exists(), "a plan changes nothing"
    assert shell.run("provision", "shop").stdout.splitlines()[-1] == "Nothing is left to do."
    assert shell.run("provision", "shop").stdout == "Nothing was to be done.\n"
    found = shell.run("doctor", "shop")
    assert (found.returncode, found.stdout) == (0, "0 dangerous, 0 warnings, 0 notes: clean.\n"), found.stderr


def test_json_is_for_programs(shell: Shell) -> None:
    write_shop(shell.folder)
    steps = json.loads(shell.run("plan", "shop", "--json").stdout)
    assert steps[0] == {"sign": "+", "subject": "topic shop/order-events", "detail": "16 partitions"}
    assert json.loads(shell.run("provision", "shop", "--json").stdout) == steps
    assert json.loads(shell.run("plan", "shop", "--json").stdout) == []
    module = shell.folder / "shop.py"
    module.write_text(
        module.read_text().replace("projections=[BestSellers]", "projections=[BestSellers], partitions=8")
    )
    found = shell.run("doctor", "shop", "--json")
    assert found.returncode == 3, found.stderr
    assert {each["severity"] for each in json.loads(found.stdout)} == {"dangerous"}
    assert shell.run("plan", "shop").returncode == 2
    refused = shell.run("provision", "shop")
    assert refused.returncode == 2
    assert "it has 16 partitions, and the pipeline declares 8" in refused.stderr


def test_what_a_releases_values_name_wrongly_is_refused_before_anything_is_made(shell: Shell) -> None:
    write_shop(shell.folder)
    values = {"pipeline": {"context": "shop", "partitions": 8}, "workers": {"ordre": {"aggregate": "Ordre"}}}
    shell.environment["MAGNETAR_CHART_VALUES"] = json.dumps(values)
    refused = shell.run("provision", "shop")
    assert refused.returncode == 2
    assert "pipeline.partitions is 8, and 16 is declared" in refused.stderr
    assert "workers.ordre.aggregate is Ordre, and the aggregates are Order" in refused.stderr
    assert "workers has none for Order" in refused.stderr
    shell.environment["MAGNETAR_CHART_SETTINGS"] = "{}"
    for module, says in (("shpo", "There is no module 'shpo'"), ("shop/pipeline.py", "is not the name of a module")):
        refused = shell.run("provision", module)
        assert (refused.returncode, says in refused.stderr) == (2, True), refused
        assert "In the chart's values it is pipeline.module" in refused.stderr
    values = {"pipeline": {"context": "shop", "partitions": 16}, "workers": {"order": {"aggregate": "Order"}}}
    shell.environment["MAGNETAR_CHART_VALUES"] = json.dumps(values)
    assert shell.run("plan", "shop").stdout.splitlines()[-1] == "3 steps.", "nothing was made"
    assert shell.run("provision", "shop").stdout.splitlines()[-1] == "Nothing is left to do."
