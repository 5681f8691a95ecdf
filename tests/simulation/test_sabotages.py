"""Each protection taken away is noticed within 400 seeds; `pytest -rP` shows by which seed and how."""

import pytest

from tests.simulation.sabotages import LOOP_SABOTAGES, SABOTAGES, TABLE_SABOTAGES, Sabotage
from tests.simulation.shrink import Shrinker, first_failure, story
from tests.simulation.world import TABLES_FROM

SEEDS_MAX = 400


@pytest.mark.parametrize(
    ("sabotage", "start"),
    [
        *[pytest.param(each, 0, id=each.__name__) for each in (*SABOTAGES, *LOOP_SABOTAGES)],
        *[
            pytest.param(each, TABLES_FROM, id=f"{each.__name__}-tables")
            for each in (*TABLE_SABOTAGES, *LOOP_SABOTAGES)
        ],
    ],
)
def test_the_sabotage_is_caught(sabotage: Sabotage, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    failure = first_failure(range(start, start + SEEDS_MAX))
    assert failure is not None, f"{sabotage.__name__} was not noticed in {SEEDS_MAX} seeds"
    print(f"{sabotage.__name__}: random seed {failure.seed}: {failure.found[0].strip().splitlines()[-1]}")


def test_a_failing_run_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage = next(each for each in SABOTAGES if each.__name__ == "prefetched_dropped_without_closing")
    sabotage(monkeypatch)
    failure = first_failure(range(SEEDS_MAX))
    assert failure is not None
    small = Shrinker(failure).shrink()
    assert small.turns < 40
    assert len(small.decisions) < 40
    assert f"python -m tests.simulation.repeat {failure.seed} --turns {small.turns} --decisions '" in story(small)
