"""A small recorded history as a file, and what `magnetar.testing.replay` says of it."""

from pathlib import Path
from typing import Any

import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.recordings import record
from magnetar.schemas import SettingsError

from magnetar.testing import replay
from tests.unit.pipelines.counting_rig import Rig, tallies
from tests.unit.pipelines.test_replaying import Choosy, Forgetful, Strict


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rig = Rig(tmp_path / "data")
    rig.send(5, 20, 0, 200, 13)
    rig.send(30, id="b", actor="somebody")
    file = tmp_path / "history.jsonl"
    assert record(tallies, rig.log, file, aggregates=["Tally"], sample=None) == 6
    rig.close()
    return file


def other(aggregate: Any) -> Pipeline:
    return Pipeline("tallies", aggregates=[aggregate], partitions=2)


def test_the_same_code_passes(file: Path) -> None:
    replay(tallies, file)


def test_another_rule_fails_with_what_differs(file: Path) -> None:
    with pytest.raises(AssertionError, match=r"Added → rejected: TooMuch: 2 commands(.|\n)*Add\(amount=20\)"):
        replay(other(Strict), str(file))


def test_an_event_that_does_not_fold_fails_with_its_line(file: Path) -> None:
    with pytest.raises(AssertionError, match=r"Added does not fold(.|\n)*test_replaying.py:\d+"):
        replay(other(Choosy), file)
    with pytest.raises(AssertionError, match="a commit does not fold"):
        replay(other(Forgetful), file)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no recorded history"):
        replay(tallies, tmp_path / "missing")
    (tmp_path / "other").write_text('{"a": 1}\n')
    with pytest.raises(SettingsError, match="no recorded history"):
        replay(tallies, tmp_path / "other")
