"""These tests run containers on a node of their own, and take minutes: `make test-node` runs them."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """None, unless they are asked for."""
    ours = [item for item in items if HERE in item.path.parents]
    if ours and "MAGNETAR_TEST_NODE" not in os.environ:
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)
