"""`magnetar helm`, as its users run it: what it prints and writes is what Helm renders a release of."""

import yaml

from tests.e2e.conftest import Shell
from tests.helm.conftest import Chart


def test_the_values_and_the_chart_that_it_gives_make_a_release(shop: Shell) -> None:
    printed = shop.run("helm", "values", "shop", "--image", "registry.example/shop:1.0.0")
    assert (printed.returncode, printed.stderr) == (0, "")
    written = shop.run("helm", "chart", "deploy")
    assert (written.returncode, written.stdout) == (0, "deploy/magnetar\n")
    chart = Chart(shop.folder / "deploy" / "magnetar")
    objects = chart.render(yaml.safe_load(printed.stdout), name="shop")
    chart.close()
    pod = objects["Deployment", "shop-worker-order"]["spec"]["template"]["spec"]
    assert [each["image"] for each in pod["containers"]] == ["registry.example/shop:1.0.0"]
    assert {("StatefulSet", "shop-projector"), ("Job", "shop-provision")} <= objects.keys()


def test_a_chart_that_somebody_may_have_edited_is_not_written_over(shop: Shell) -> None:
    assert shop.run("helm", "chart", "deploy").returncode == 0
    values = shop.folder / "deploy" / "magnetar" / "values.yaml"
    values.write_text("mine: true\n")
    refused = shop.run("helm", "chart", "deploy")
    assert refused.returncode == 2
    assert "deploy/magnetar" in refused.stderr
    assert values.read_text() == "mine: true\n"
