"""Two thousand seeds of two hundred turns each: nothing is lost, nothing is done twice, there is one history."""

from collections import Counter

import pytest
from magnetar.schemas import ReadRule, Verdict
from magnetar.schemas.commit import read_head

from tests.counting import counting
from tests.simulation.choices import read, written
from tests.simulation.client import EVENTS, PARTITIONS
from tests.simulation.shrink import first_failure, run, story
from tests.simulation.sim_tables import Booking, Ledger
from tests.simulation.stage import FAULTS
from tests.simulation.world import TABLES_FROM

SEEDS = 2000
BLOCKS = 40


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_violation(block: int) -> None:
    size = SEEDS // BLOCKS
    failure = first_failure(range(block * size, (block + 1) * size))
    assert failure is None, story(failure)


@pytest.mark.parametrize("block", range(8))
def test_no_violation_in_the_tables_of_rows_and_folds(block: int) -> None:
    failure = first_failure(range(TABLES_FROM + block * 20, TABLES_FROM + (block + 1) * 20))
    assert failure is None, story(failure)


def test_what_tables_of_rows_and_folds_go_through_happens_often() -> None:
    happened = Counter[str]()
    for seed in range(TABLES_FROM, TABLES_FROM + 20):
        world, _ = run(seed, 200, tracing=True)
        happened.update(step for line in world.stage.trace for step in ("read back", "tell", "count") if step in line)
        happened["merged"] += sum("merges" in key for key in world.choices.made)
        for partition in range(PARTITIONS):
            happened["rows"] += len(world.tables[Booking].table(partition))
            happened["deleted"] += sum(row[4] for row in world.tables[Ledger].newest(partition).values())
    assert not {name for name in ("read back", "tell", "count", "merged", "rows", "deleted") if happened[name] < 5}


@pytest.mark.parametrize("block", range(4))
def test_no_violation_in_long_runs(block: int) -> None:
    failure = first_failure(range(SEEDS + block * 5, SEEDS + block * 5 + 5), turns=2000)
    assert failure is None, story(failure)


@pytest.mark.parametrize("seed", [7, TABLES_FROM + 7])
def test_a_seed_repeats_its_run(seed: int) -> None:
    assert run(seed, 200, tracing=True)[0].stage.trace == run(seed, 200, tracing=True)[0].stage.trace


@pytest.mark.parametrize("seed", [*range(5), *range(TABLES_FROM, TABLES_FROM + 2)])
def test_the_list_of_its_decisions_repeats_a_run(seed: int) -> None:
    drawn, _ = run(seed, 200, tracing=True)
    repeated, _ = run(seed, 200, repeated=read(written(drawn.choices.made)), tracing=True)
    assert repeated.stage.trace == drawn.stage.trace


def test_every_fault_happens_often() -> None:
    happened = Counter[str]()
    for seed in range(60):
        world, _ = run(seed, 200)
        happened.update(kind for kind in FAULTS for line in world.stage.trace if line.endswith(f": {kind}"))
        happened["crash"] += sum(" crashes at " in line for line in world.stage.trace)
        happened["freeze"] += sum(" freezes at " in line for line in world.stage.trace)
        happened["refusal"] += sum(line.endswith("refuses a partition") for line in world.stage.trace)
        happened["late landing"] += sum(line.endswith(", late") for line in world.stage.trace)
    rare = {kind: happened[kind] for kind in (*FAULTS, "late landing") if happened[kind] < 10}
    assert not rare
    assert happened["refusal"]


def test_the_judges_own_read_rule_agrees_with_the_shipped_one() -> None:
    verdicts = Counter[Verdict]()
    for seed in range(150):
        world, _ = run(seed, 200)
        for partition in world.broker.topic(EVENTS).partitions:
            rule, counted = ReadRule(), list[object]()
            for message in partition.messages:
                number, owner, _ = read_head(message.payload)
                verdict = rule.judge(number, owner)
                verdicts[verdict] += 1
                if verdict is Verdict.COUNTS:
                    counted.append(message)
            assert counted == counting(partition.messages)
    assert verdicts.keys() == set(Verdict), verdicts
