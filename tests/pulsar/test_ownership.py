"""Workers as processes share the partitions, and take over from those that die, freeze or go."""

from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from tests.e2e.conftest import Shell
from tests.pulsar.crew import LONG, PARTITIONS, Crew, say, send
from tests.pulsar_rig import Existing, Standalone, data_folder, started


@pytest.fixture(scope="module")
def attentive() -> Iterator[Existing]:
    """A broker with the setting that `magnetar doctor` proposes."""
    with data_folder() as folder, started(Standalone(folder, {"keepAliveIntervalSeconds": "4"})) as broker:
        yield broker


@pytest.fixture
def crew(attentive: Existing, tmp_path: Path) -> Iterator[Crew]:
    """Three workers, each of which has decided something on each of its partitions."""
    shell = Shell(tmp_path)
    crew = Crew(attentive, shell)
    try:
        crew.run(3)
        crew.ask(range(PARTITIONS))
        yield crew
    finally:
        shell.close()
        crew.close()


def test_partitions_of_a_killed_worker_go_on_with_the_others_and_are_shared_out_anew(crew: Crew) -> None:
    killed = crew.names()[0]
    its = crew.partitions_of(killed)
    send(killed, SIGKILL)
    say("kill -9, to the answer on the last of its partitions", crew.ask(its), below=5)
    crew.eventually(lambda: killed not in crew.names() and crew.is_spread(3), "another worker has been started")
    crew.ask(range(PARTITIONS))
    claims = crew.claims()
    assert min(claims[partition] for partition in its) >= 2


def test_partitions_of_a_frozen_worker_go_on_and_it_comes_back_without_a_war_of_fences(crew: Crew) -> None:
    frozen = crew.names()[0]
    its = crew.partitions_of(frozen)
    send(frozen, SIGSTOP)
    try:
        say("SIGSTOP, to the answer on the last of its partitions", crew.ask(its), below=15)
        assert frozen not in crew.names()
    finally:
        send(frozen, SIGCONT)
    crew.eventually(lambda: frozen in crew.names() and crew.is_spread(3), "the woken one has a share again")
    say("after it woke, to the answer on the last partition", crew.ask(range(PARTITIONS)), below=15)
    crew.eventually(crew.has_settled, "no partition changes its owner any more")  # in a war of fences, they always do
    settled = crew.claims()
    print("owners, one after the other, by partition:", settled)
    assert max(settled) <= 6  # each of the three may have had it, before and after


def test_a_worker_that_is_told_to_stop_hands_its_partitions_over(crew: Crew) -> None:
    stopped = crew.names()[0]
    its = crew.partitions_of(stopped)
    send(stopped, SIGTERM)
    say("SIGTERM, to the answer on the last of its partitions", crew.ask(its), below=5)
    crew.eventually(lambda: stopped not in crew.names() and crew.is_spread(3), "another worker has been started")
    crew.claims()
    crew.supervisor.terminate()
    assert crew.supervisor.wait(LONG) == 0
    assert crew.names() == []
