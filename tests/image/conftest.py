"""These tests build an image, which takes minutes: `make test-image` runs them."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """None, unless they are asked for."""
    ours = [item for item in items if HERE in item.path.parents]
    if ours and "MAGNETAR_TEST_IMAGE" not in os.environ:
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)
