"""What a brain can return, from the client over the embedded log to the client again."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import structlog
from magnetar.aggregates import Aggregate
from magnetar.pipelines import CommandParked, Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Command, Event, PartitionRefused, Rejection, uuid7


class Deposit(Command):
    cents: int


class Close(Command):
    pass


class Fail(Command):
    how: str


class Deposited(Event):
    cents: int


class Rounded(Event):
    cents: int


class Closed(Event):
    pass


class Stray(Event):
    pass


class Empty(Rejection):
    cents: int


class Account(Aggregate):
    cents: int = 0
    is_closed: bool = False

    def execute(
        self, command: Deposit | Close | Fail
    ) -> Deposited | tuple[Deposited, Rounded] | tuple[Rounded, Closed] | Empty | None:
        match command:
            case Deposit(0):
                return None
            case Deposit(cents) if cents % 10:
                return Deposited(cents), Rounded(cents // 10 * 10)
            case Deposit(cents):
                return Deposited(cents)
            case Close() if not self.cents:
                return Empty(self.cents)
            case Close():
                return Rounded(self.cents), Closed()
            case Fail(how):
                broken: Deposited = self._fail(how)
                return broken

    def _fail(self, how: str) -> Any:
        async def coroutine() -> None:
            """Never awaited."""

        match how:
            case "stray":
                return Stray()
            case "tuple":
                return Deposited(1), Empty(1)
            case "alone":
                return Closed()
            case "list":
                return [Deposited(1)]
            case "generator":
                return (Deposited(cents) for cents in (1, 2))
            case "coroutine":
                return coroutine()
            case "type":
                return Deposited
            case "apply":
                return Deposited(-1)
            case "is_ended":
                return Deposited(-2)
            case _:
                raise RuntimeError(how)

    def apply(self, event: Deposited | Rounded | Closed) -> Self:
        match event:
            case Deposited(-1):
                nothing: Any = None
                found: Self = nothing
                return found
            case Deposited(cents):
                return self.replace(cents=self.cents + cents)
            case Rounded(cents):
                return self.replace(cents=cents)
            case Closed():
                return self.replace(is_closed=True)

    def is_ended(self) -> bool:
        if self.cents == -2:
            raise RuntimeError("what now?")
        return self.is_closed


class Forgetful(Aggregate, wire_name="Account"):
    """A later release, whose `apply` has lost a case."""

    cents: int = 0

    def execute(self, command: Deposit | Close | Fail) -> Deposited | Empty | None:
        return None

    def apply(self, event: Deposited | Rounded | Closed) -> Self:
        match event:
            case Deposited():
                return self
            case _:
                lost: Any = None
                state: Self = lost
                return state


class System:
    """A log in a folder, with a client."""

    def __init__(self, folder: Path) -> None:
        self.pipeline = Pipeline("bank", aggregates=[Account], partitions=1)
        self.log = SqliteLog(folder, SystemClock())
        provision(self.pipeline, self.log)
        self.client = SyncClient(self.pipeline, settings=Settings(data=folder))

    def worker(self, aggregate: type[Aggregate] = Account) -> Worker:
        schema = Pipeline("bank", aggregates=[aggregate], partitions=1).schemas["Account"]
        clock, rng = SystemClock(), random.SystemRandom()
        return Worker(self.log, aggregate, schema, partitions=1, name=aggregate.__name__, clock=clock, random=rng)

    def close(self) -> None:
        self.client.close()
        self.log.close()


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "data")
    yield system
    system.close()


@pytest.fixture
def system(stopped: System) -> Iterator[System]:
    """A system with a worker at work on a thread."""
    worker, stop = stopped.worker(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            worker.step(timeout_seconds=0.05)

    thread = threading.Thread(target=work)
    thread.start()
    yield stopped
    stop.set()
    thread.join()
    worker.close()


def parked(system: System, command: Deposit | Close | Fail, id: str = "a", **more: Any) -> str:
    with pytest.raises(CommandParked) as caught:
        system.client.ask(Account, id, command, **more)
    return f"{caught.value.reason}: {caught.value.what}"


def test_one_commit_has_several_events_one_rejection_or_nothing(system: System) -> None:
    receipt = system.client.ask(Account, "a", Close())
    assert (receipt.outcome, receipt.version, receipt.position) == (Empty(0), 0, "bank/Account/0/1")
    receipt = system.client.ask(Account, "a", Deposit(17))
    assert (receipt.outcome, receipt.version, receipt.position) == (
        (Deposited(17), Rounded(10)),
        2,
        "bank/Account/0/2",
    )
    receipt = system.client.ask(Account, "a", Deposit(0))
    assert (receipt.outcome, receipt.version, receipt.position) == (None, 2, "bank/Account/0/3")
    assert system.client.ask(Account, "a", Deposit(20)).version == 3


def test_an_expected_version_holds_or_parks_and_an_id_is_looked_for_first(system: System) -> None:
    id = uuid7(SystemClock().now_ms(), 1)
    assert system.client.ask(Account, "a", Deposit(10), expected_version=0, command_id=id).version == 1
    assert system.client.ask(Account, "a", Deposit(11), expected_version=1).version == 3
    told = parked(system, Deposit(10), expected_version=1)
    assert told.startswith("version_conflict:")
    assert "version 1 was expected, and it is 3" in told
    again = system.client.ask(Account, "a", Deposit(10), expected_version=0, command_id=id)
    assert (again.outcome, again.version) == (Deposited(10), 1)
    assert system.client.ask(Account, "a", Deposit(10)).version == 4


def test_what_comes_after_the_end_is_parked_whatever_it_is(system: System) -> None:
    system.client.ask(Account, "a", Deposit(10))
    receipt = system.client.ask(Account, "a", Close())
    assert (receipt.outcome, receipt.version) == ((Rounded(10), Closed()), 3)
    for command in (Deposit(1), Close(), Fail("loudly")):
        assert parked(system, command).startswith("ended:")
    assert parked(system, Close(), expected_version=2).startswith("version_conflict:")
    assert system.client.ask(Account, "b", Deposit(10)).version == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("stray", "UndeclaredOutcome: execute returned a Stray that its annotation does not declare"),
        ("alone", "a Closed that its annotation does not declare"),
        ("tuple", "a tuple of Deposited, Empty that its annotation does not declare"),
        ("list", "a list: several events are returned as a tuple"),
        ("generator", "a generator: several events are returned as a tuple"),
        ("coroutine", "a coroutine: it must not be async"),
        ("type", "a ImmutableMeta that its annotation does not declare"),
        ("apply", "apply returned None for Deposited, and has to return a Account"),
        ("is_ended", "is_ended: RuntimeError: what now?"),
        ("loudly", "RuntimeError: loudly"),
    ],
)
def test_a_brain_that_breaks_its_word_parks_one_command_naming_the_type(system: System, how: str, words: str) -> None:
    told = parked(system, Fail(how))
    assert told.startswith("brain_raised:")
    assert words in told
    receipt = system.client.ask(Account, "a", Deposit(10))
    assert (receipt.outcome, receipt.version, receipt.position) == (Deposited(10), 1, "bank/Account/0/2")


def test_the_worker_logs_the_lines_that_raised(stopped: System) -> None:
    worker = stopped.worker()
    stopped.client.send(Account, "a", Fail("loudly"))
    with structlog.testing.capture_logs() as logs:
        while worker.step(timeout_seconds=0.3):
            pass
    worker.close()
    (told,) = [entry for entry in logs if entry["event"] == "command parked"]
    assert told["reason"] == "brain_raised"
    assert "raise RuntimeError(" in told["exception"]
    assert "processor.py" not in told["exception"]
    assert told["exception"].endswith("RuntimeError")


def test_a_release_whose_apply_cannot_replay_refuses_the_partition(stopped: System) -> None:
    first = stopped.worker()
    stopped.client.send(Account, "a", Deposit(17))
    while first.step(timeout_seconds=0.3):
        pass
    first.close()
    second = stopped.worker(Forgetful)
    stopped.client.send(Account, "a", Deposit(10))
    while second.step(timeout_seconds=0.3):
        pass
    refused = second.refused[0]
    assert isinstance(refused, PartitionRefused)
    assert (
        "Commit 1 cannot be replayed: apply raised UndeclaredOutcome: apply returned None for Rounded" in refused.what
    )
    second.close()
    third = stopped.worker()
    while third.step(timeout_seconds=0.3):
        pass
    assert third._owned[0].processor.state_of("a") == (3, Account(20))
    third.close()
