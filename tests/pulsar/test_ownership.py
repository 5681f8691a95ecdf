"""Workers as processes share the partitions, and take over from those that die, freeze or go."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision, worker_name
from magnetar.schemas import TopicKind

from tests.e2e.conftest import Shell
from tests.pulsar.crew import LONG, PARTITIONS, Crew, say, send
from tests.pulsar_rig import Existing, Standalone, data_folder, started
from tests.unit.pipelines.purses import Purse


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


# --- how many partitions move -----------------------------------------------------------------------------------------

SHARED = 16
SETTLED_SECONDS = 3.0
"""The broker lets a new owner begin after a second."""


class Team:
    """The consumers of some workers on a pipeline's command topic."""

    def __init__(self, broker: Existing, workers: int) -> None:
        self._log = PulsarLog(broker.service_url, broker.admin_url, clock=SystemClock())
        pipeline = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=SHARED)
        provision(pipeline, self._log)
        self._commands = pipeline.topic("Purse", TopicKind.COMMANDS)
        self._consumers = {name: self._log.consumer(self._commands, name=name) for name in _names(workers)}
        self.owners = self._settled()
        """By partition, whom the broker names."""

    @property
    def names(self) -> list[str]:
        return list(self._consumers)

    def leave(self, name: str) -> int:
        """Let one go; returns how many partitions that were not its own have moved."""
        self._consumers.pop(name).close()
        before, self.owners = self.owners, self._settled()
        return sum(now != then != name for now, then in zip(self.owners, before, strict=True))

    def join(self) -> int:
        """Let a new one come; returns how many partitions have moved to others than that one."""
        (name,) = _names(1)
        self._consumers[name] = self._log.consumer(self._commands, name=name)
        before, self.owners = self.owners, self._settled()
        return sum(then != now != name for now, then in zip(self.owners, before, strict=True))

    def close(self) -> None:
        self._log.close()

    def _settled(self) -> list[str | None]:
        """Whom it names when it has stopped changing."""
        owners, since = self._named(), time.monotonic()
        deadline = since + LONG
        while not set(owners) <= set(self._consumers) or time.monotonic() - since < SETTLED_SECONDS:
            assert time.monotonic() < deadline, owners
            time.sleep(0.2)  # the broker tells nobody when it has chosen: it can only be asked again
            if (now := self._named()) != owners:
                owners, since = now, time.monotonic()
        return owners

    def _named(self) -> list[str | None]:
        return [each.active for each in self._log.backlog(self._commands)]


def _names(count: int) -> list[str]:
    return [worker_name() for _ in range(count)]


def test_with_consistent_hashing_a_rolling_update_moves_what_a_worker_had_and_gets() -> None:
    hashing = {"activeConsumerFailoverConsistentHashing": "true"}
    with data_folder() as folder, started(Standalone(folder, hashing)) as broker:
        team = Team(broker, 3)
        for old in team.names[:2]:
            assert (team.leave(old), team.join()) == (0, 0)
        team.close()


def test_without_it_others_partitions_move_too(broker: Existing) -> None:
    team = Team(broker, 3)
    assert team.leave(team.names[0]) + team.join() > 0
    team.close()
