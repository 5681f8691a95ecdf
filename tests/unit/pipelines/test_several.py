"""Rows over several aggregates, and over those of another context: each suite has an engine to itself."""

from pathlib import Path

import pytest

from tests.unit.pipelines.test_embedded import run_pytest


@pytest.mark.parametrize("suite", ["several_suite", "foreign_suite"])
def test_rows_over_several_aggregates(tmp_path: Path, suite: str) -> None:
    assert " passed" in run_pytest(f"tests/unit/pipelines/{suite}.py", tmp_path)
