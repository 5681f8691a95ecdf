"""The client over real logs and workers: what a sender learns, and that repeating is safe whatever happened."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, assert_type

import pytest
from magnetar.pipelines import CommandParked, Outgoing, Receipt, SyncClient
from magnetar.schemas import (
    AccessDenied,
    DataFolderError,
    LogUnavailable,
    MagnetarError,
    MessageRefused,
    OutcomeUnknown,
    SettingsError,
    TopicKind,
    partition_of,
)
from magnetar.schemas.ids import is_uuid7

from tests.unit.pipelines.purses import (
    PARTITIONS,
    Broke,
    Door,
    Knock,
    Knocked,
    LateClock,
    Paid,
    Pay,
    Place,
    Purse,
    Twice,
    new_id,
    purses,
)

SHORT = 0.3
"""Seconds that nobody is there to answer in."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "data")


@pytest.fixture
def client(place: Place) -> Iterator[SyncClient]:
    with place.client() as client:
        yield client


# --- what a receipt says ----------------------------------------------------------------------------------------------


def test_a_receipt_has_the_outcome_the_version_after_it_and_the_position(place: Place, client: SyncClient) -> None:
    home = partition_of("a", PARTITIONS)
    with place.working():
        id = new_id()
        receipt = client.ask(Purse, "a", Pay(5), command_id=id)
        assert_type(receipt, Receipt[Paid | tuple[Paid, Twice] | Broke | None])
        assert (receipt.outcome, receipt.version) == (Paid(5, None, id), 1)
        assert receipt.position == f"purses/Purse/{home}/1"
        both = client.ask(Purse, "a", Pay(2))
        assert isinstance(both.outcome, tuple)
        assert ([type(event) for event in both.outcome], both.version) == ([Paid, Twice], 3)
        nothing = client.ask(Purse, "a", Pay(0))
        assert (nothing.outcome, nothing.version, nothing.position) == (None, 3, f"purses/Purse/{home}/3")
        rejected = client.ask(Purse, "a", Pay(10_001))
        assert (rejected.outcome, rejected.version) == (Broke(10_000), 3)
        assert client.ask(Door, "a", Knock()).outcome == Knocked()


def test_what_could_not_be_decided_is_parked_with_its_reason(place: Place, client: SyncClient) -> None:
    id = new_id()
    with place.working(), pytest.raises(CommandParked, match="unlucky") as parked:
        client.ask(Purse, "a", Pay(13), command_id=id)
    assert (parked.value.reason, parked.value.command_id) == ("brain_raised", id)
    assert parked.value.position == f"purses/Purse/{partition_of('a', PARTITIONS)}/1"


def test_what_a_sender_says_besides_reaches_the_aggregate_and_the_commit(place: Place, client: SyncClient) -> None:
    correlation, causation = new_id(), new_id()
    with place.working():
        receipt = client.ask(
            Purse, "a", Pay(5), actor="anna", correlation_id=correlation, causation_id=causation, metadata={"ip": "::1"}
        )
        client.send(Purse, "b", Pay(5), actor="bert", metadata={"ip": "::2"})
        client.ask(Purse, "b", Pay(0))
    assert receipt.outcome == Paid(5, "anna", correlation)
    by_id = {commit.aggregate_id: commit for commit in place.commits() if commit.events}
    commit = by_id["a"]
    assert (commit.actor, commit.correlation_id, commit.causation_id) == ("anna", correlation, causation)
    assert commit.metadata == {"ip": "::1"}
    assert (by_id["b"].actor, by_id["b"].metadata) == ("bert", {"ip": "::2"})
    assert by_id["b"].correlation_id == by_id["b"].command_id


def test_an_expected_version_decides_only_at_that_version(place: Place, client: SyncClient) -> None:
    with place.working():
        receipt = client.ask(Purse, "a", Pay(5), expected_version=0)
        again = client.ask(Purse, "a", Pay(5), expected_version=receipt.version)
        with pytest.raises(CommandParked) as parked:
            client.ask(Purse, "a", Pay(5), expected_version=receipt.version)
    assert (again.version, parked.value.reason, parked.value.version) == (2, "version_conflict", 2)
    assert "look at it" in parked.value.cure


@pytest.mark.parametrize(
    ("id", "details", "words"),
    [
        ("", {}, "the aggregate id is empty"),
        ("x" * 513, {}, "513 bytes"),
        ("a\nb", {}, "cannot be printed"),
        (7, {}, "the aggregate's id is 7"),
        ("a", {"command_id": "x"}, "not a UUID version 7"),
        ("a", {"correlation_id": "x"}, "correlation_id 'x' is not a UUID"),
        ("a", {"causation_id": "x"}, "causation_id 'x' is not a UUID"),
        ("a", {"actor": 7}, "the actor is 7"),
        ("a", {"actor": "\ud800"}, "surrogates"),
        ("a", {"expected_version": -1}, "expected version is -1"),
        ("a", {"expected_version": True}, "expected version is True"),
        ("a", {"metadata": {"n": 1}}, "metadata 'n': 1 is not text"),
        ("a", {"metadata": {"magnetar.drop": "x"}}, "'magnetar.drop' would be taken for Magnetar's own"),
    ],
)
def test_what_could_not_be_decided_is_not_even_sent(
    place: Place, client: SyncClient, id: Any, details: dict[str, Any], words: str
) -> None:
    with pytest.raises(MessageRefused, match=words):
        client.ask(Purse, id, Pay(1), **details)
    with pytest.raises(MessageRefused, match=words):
        client.send(Purse, id, Pay(1), **details)
    assert place.commands() == 0


def test_a_command_of_another_aggregate_is_refused(client: SyncClient) -> None:
    with pytest.raises(MessageRefused, match="Purse has no command Knock"):
        client.ask(Purse, "a", Knock())  # type: ignore[misc] # what a type checker says, said at run time


# --- repeating --------------------------------------------------------------------------------------------------------


def test_an_ask_that_nobody_answered_says_its_id_and_that_repeating_is_safe(place: Place, client: SyncClient) -> None:
    with pytest.raises(OutcomeUnknown, match="same command id is safe") as unknown:
        client.ask(Purse, "a", Pay(5), timeout_seconds=SHORT)
    id = unknown.value.fields["command_id"]
    assert isinstance(id, str)
    assert is_uuid7(id)
    assert unknown.value.retry_is_safe
    with place.working():
        receipt = client.ask(Purse, "a", Pay(5), command_id=id)
        assert (receipt.outcome, receipt.version) == (Paid(5, None, id), 1)
    assert [commit.command_id for commit in place.commits()] == [id]


@pytest.mark.parametrize("amount", [5, 2, 0, 10_001], ids=["an event", "two events", "nothing", "a rejection"])
def test_a_repeat_gets_the_first_outcome_over_a_restart_of_the_worker(
    place: Place, client: SyncClient, amount: int
) -> None:
    id = new_id()
    with place.working():
        first = client.ask(Purse, "a", Pay(amount), command_id=id)
        client.ask(Purse, "a", Pay(1))
        at_once = client.ask(Purse, "a", Pay(amount), command_id=id)
    with place.working(), place.client() as another:
        after = another.ask(Purse, "a", Pay(amount), command_id=id)
    for repeat in (at_once, after):
        assert repr(repeat) == repr(first)
    assert len(place.commits()) == 2


def test_a_repeat_of_a_parked_command_is_parked_at_the_same_place(place: Place, client: SyncClient) -> None:
    id = new_id()
    places = []
    for _ in range(2):
        with place.working(), pytest.raises(CommandParked, match="unlucky") as parked:
            client.ask(Purse, "a", Pay(13), command_id=id)
        places.append(parked.value.position)
    assert places[0] == places[1]
    assert len(place.commits()) == 1


def test_a_repeat_late_within_the_window_gets_the_first_outcome(place: Place) -> None:
    id, clock = new_id(), LateClock(0)
    with place.working(), place.client(clock) as client:
        first = client.ask(Purse, "a", Pay(5), command_id=id)
        clock.minutes = 9
        assert repr(client.ask(Purse, "a", Pay(5), command_id=id)) == repr(first)
    assert len(place.commits()) == 1


def test_a_repeat_beyond_the_window_is_parked_and_decides_nothing(place: Place) -> None:
    id, clock = new_id(), LateClock(0)
    with place.working(), place.client(clock) as client:
        client.ask(Purse, "a", Pay(5), command_id=id)
        clock.minutes = 30
        list(client.send_many(Outgoing(Purse, "a", Pay(0)) for _ in range(100)))  # the log's time goes on with these
        with pytest.raises(CommandParked, match="could be a repeat") as parked:
            client.ask(Purse, "a", Pay(5), command_id=id)
        assert parked.value.reason == "expired"
        total = client.ask(Purse, "a", Pay(1)).outcome
    assert isinstance(total, Paid)
    assert total.total == 6


def test_an_id_made_too_long_ago_is_parked(place: Place, client: SyncClient) -> None:
    with place.working(), pytest.raises(CommandParked) as parked:
        client.ask(Purse, "a", Pay(5), command_id=new_id(minutes_ago=11))
    assert parked.value.reason == "expired"


# --- many threads -----------------------------------------------------------------------------------------------------


def test_threads_share_a_client(place: Place, client: SyncClient) -> None:
    wrong: list[object] = []

    def ask(thread: int) -> None:
        for n in range(1, 40):
            outcome = client.ask(Purse, f"p{thread}", Pay(3)).outcome
            if not isinstance(outcome, Paid) or outcome.total != 3 * n:
                wrong.append(outcome)

    with place.working():
        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# --- loss and end -----------------------------------------------------------------------------------------------------


def wait_for_ask(client: SyncClient) -> None:
    """Wait until the client waits for a reply."""
    while not client._connection._replies._asks:
        pass


class Asking(threading.Thread):
    """An ask on a thread, and how it ended."""

    def __init__(self, client: SyncClient) -> None:
        super().__init__()
        self.client = client
        self.error: MagnetarError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.client.ask(Purse, "a", Pay(1), timeout_seconds=60)
        except MagnetarError as error:
            self.error = error


def test_closing_ends_the_asks_under_way_with_what_is_known(client: SyncClient) -> None:
    asking = Asking(client)
    wait_for_ask(client)
    client.close()
    asking.join(30)
    assert isinstance(asking.error, OutcomeUnknown)
    assert "the client was closed" in str(asking.error)
    assert "command_id" in asking.error.fields


def test_a_closed_client_says_so_and_can_be_closed_again(client: SyncClient) -> None:
    client.close()
    client.close()
    for use in (client.ask, client.send):
        with pytest.raises(SettingsError, match="The client is closed"):
            use(Purse, "a", Pay(1))
    with pytest.raises(SettingsError, match="The client is closed"):
        list(client.send_many([Outgoing(Purse, "a", Pay(1))]))


def test_when_the_data_folder_goes_away_asks_end_and_when_it_is_back_they_go_on(
    place: Place, client: SyncClient, tmp_path: Path
) -> None:
    client.send(Purse, "a", Pay(1))
    asking = Asking(client)
    while place.commands() < 2:
        pass
    place.folder.rename(tmp_path / "away")
    asking.join(30)
    assert isinstance(asking.error, OutcomeUnknown)
    assert "replies do not come in any more" in str(asking.error)
    for use in (client.ask, client.send):
        with pytest.raises((DataFolderError, LogUnavailable)):
            use(Purse, "a", Pay(1))
    (tmp_path / "away").rename(place.folder)
    with place.working():
        assert client.ask(Purse, "a", Pay(1)).version >= 2


def test_nothing_is_confirmed_that_went_into_a_deleted_file(place: Place, client: SyncClient) -> None:
    client.send(Purse, "a", Pay(1))
    shutil.rmtree(place.folder)
    with pytest.raises(DataFolderError, match="is missing"):
        client.send(Purse, "a", Pay(1))


def test_a_partition_that_is_locked_says_by_whom_and_the_others_go_on(place: Place, client: SyncClient) -> None:
    home = partition_of("a", PARTITIONS)
    other = next(id for id in "bcdefgh" if partition_of(id, PARTITIONS) != home)
    file = place.folder / "log" / str(purses.topic("Purse", TopicKind.COMMANDS)) / f"{home}.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match=f"is locked: process {os.getpid()} ") as locked:
            client.send(Purse, "a", Pay(1), timeout_seconds=4)
        assert is_uuid7(str(locked.value.fields["command_id"]))
        asking = Asking(client)
        wait_for_ask(client)
        with place.working():
            assert client.ask(Purse, other, Pay(1)).version == 1
        frozen.execute("ROLLBACK")
    with place.working():
        asking.join(30)
    assert asking.error is None


FORKED = """
import os, sys
from tests.unit.pipelines.purses import Pay, Place, Purse
from pathlib import Path
place = Place(Path(sys.argv[1]))
with place.working(), place.client() as client:
    client.ask(Purse, "a", Pay(1))
    if os.fork() == 0:
        try:
            client.ask(Purse, "a", Pay(1))
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        client.close()
        os._exit(0)
    os.wait()
    print("version", client.ask(Purse, "a", Pay(1)).version)
"""


def test_a_forked_process_is_told_to_open_its_own_and_leaves_its_parents_alone(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(root)!r})\n{FORKED}", str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}  # newer Pythons warn of forking with threads
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("SettingsError", "version"))]
    assert [line.split()[0] for line in lines] == ["SettingsError", "version"], ran.stdout + ran.stderr
    assert "Open a client in each process, after the fork." in lines[0]
    assert lines[1] == "version 2"


def test_an_answer_whose_schema_may_not_be_read_is_no_refusal_of_the_command(
    place: Place, client: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decided: who took it for refused, and sent it anew, would have it done twice."""

    def denied(*_: object) -> None:
        raise AccessDenied("Pulsar does not allow this role GET /schemas/…")

    monkeypatch.setattr(client._connection._log, "schema", denied)
    with place.working(), pytest.raises(OutcomeUnknown, match=r"its answer cannot be read .*GET /schemas") as unknown:
        client.ask(Purse, "a", Pay(1), timeout_seconds=30)
    assert is_uuid7(str(unknown.value.fields["command_id"]))
