"""A copy of the checkout that a test may spoil."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as they stand, without environments, caches and git."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "magnetar", ignore=NOT_SOURCES)
