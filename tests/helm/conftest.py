"""Rendering the chart in-process, with Helm's own code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from magnetar.pipelines.chart import write_chart

from tests.docs.pages import ROOT, Block, parts

Values = dict[str, Any]
Objects = dict[tuple[str, str], Any]
"""What is rendered, by kind and name."""


def minimal(**changes: Any) -> Values:
    """The least that a release needs, with these changed."""
    return {
        "pipeline": {"module": "shop.pipeline", "context": "shop", "partitions": 4},
        "image": {"repository": "registry.example/shop", "tag": "1.0.0"},
        "pulsar": {"url": "pulsar://pulsar:6650", "adminUrl": "http://pulsar:8080"},
        "workers": {
            "order": {"aggregate": "Order", "topic": "persistent://public/shop/order-commands"},
            "stock-item": {"aggregate": "StockItem", "topic": "persistent://public/shop/stock-item-commands"},
        },
        **changes,
    }


def written(page: str, name: str) -> Values:
    """The values that stand on a page of the docs, in the block with this one."""
    blocks = [part for part in parts(ROOT / "docs" / page) if isinstance(part, Block) and part.language == "yaml"]
    (values,) = (values for block in blocks if name in (values := yaml.safe_load(block.text)))
    return dict(values)


def lines_of(page: str, command: str) -> list[str]:
    """The lines on a page of the docs that begin with this command."""
    blocks = [part for part in parts(ROOT / "docs" / page) if isinstance(part, Block) and part.language == "bash"]
    return [line for block in blocks for line in block.text.splitlines() if line.startswith(command)]


class Chart:
    """The chart as the package has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chart = helm_python.Chart.load(folder)

    def render(self, values: Values, *, name: str = "rel") -> Objects:
        """The objects of a release that is upgraded. Raises what helm does for values that it does not take."""
        self._chart.validate_schema(self._chart.merge_values(values))
        files = self._chart.render(values, name=name, namespace="ns", revision=2, is_install=False, is_upgrade=True)
        texts = [text for path, text in files.items() if not path.endswith(".txt")]
        found = [o for text in texts for o in yaml.safe_load_all(text) if o]
        objects = {(o["kind"], o["metadata"]["name"]): o for o in found}
        assert len(objects) == len(found), "two objects have one name"
        return objects

    def notes(self, values: Values, *, is_upgrade: bool) -> str:
        """What helm says when it has installed or upgraded the release."""
        files = self._chart.render(
            values, name="rel", namespace="ns", revision=2, is_install=not is_upgrade, is_upgrade=is_upgrade
        )
        (text,) = (text for path, text in files.items() if path.endswith("NOTES.txt"))
        return str(text)

    def lint(self, values: Values) -> list[str]:
        """What `helm lint --strict` says against it."""
        report = helm_python.lint(self.folder, values, strict=True)
        return [str(m["error"]) for m in report["messages"] if m["severity"] > 1] + list(report["errors"])

    def close(self) -> None:
        """Let go of it."""
        self._chart.close()


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chart]:
    """The chart out of the package."""
    chart = Chart(write_chart(tmp_path_factory.mktemp("chart")))
    yield chart
    chart.close()
