"""The table of transitions: from what tests have confirmed to rows and columns."""

import enum
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from magnetar.aggregates import Aggregate, evidence, given
from magnetar.pipelines.transitions import (
    Outcome,
    TestsFailed,
    as_json,
    gather,
    read_evidence,
    show,
    transitions,
)
from magnetar.schemas import Command, Event, Rejection, SettingsError, State


class Lock(Command):
    pass


class Push(Command):
    times: int = 1


class Locked(Event):
    pass


class Pushed(Event):
    pass


class Shut(Rejection):
    pass


class Open(State):
    pass


class Closed(State):
    pass


class Gate(Aggregate):
    way: Open | Closed = Open()
    pushes: int = 0

    def execute(self, command: Lock | Push) -> Locked | Pushed | tuple[Pushed, ...] | Shut | None:
        match self.way, command:
            case Closed(), Lock():
                return None
            case Closed(), Push():
                return Shut()
            case _, Lock():
                return Locked()
            case _, Push(times):
                return (Pushed(),) * times if times > 1 else Pushed()

    def apply(self, event: Locked | Pushed) -> Self:
        return self.replace(pushes=self.pushes + 1) if isinstance(event, Pushed) else self.replace(way=Closed())

    def is_ended(self) -> bool:
        return self.pushes > 2


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Light(Aggregate):
    mode: Literal["day", "night"] = "day"
    colour: Colour = Colour.RED
    over: Closed | None = None
    name: str = ""

    def execute(self, command: Lock) -> Locked:
        return Locked()

    def apply(self, event: Locked) -> Self:
        return self.replace(mode="night", over=Closed())


class Valve(Gate):
    way: Annotated[Open | Closed, "of the water"] = Open()


class Counter(Aggregate):
    count: int = 0

    def execute(self, command: Push) -> Pushed:
        return Pushed()

    def apply(self, event: Pushed) -> Self:
        return self.replace(count=self.count + 1)

    def is_ended(self) -> bool:
        return self.count == 10


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "evidence.jsonl"
    monkeypatch.setenv("MAGNETAR_EVIDENCE", str(file))
    return file


def test_what_was_confirmed_stands_in_its_cell_and_the_rest_is_untested(file: Path) -> None:
    given(Gate).when(Lock()).then(Locked())
    given(Gate).when(Push()).then(Pushed())
    given(Gate).when(Push()).then(Pushed())
    given(Gate).when(Push(2)).then((Pushed(), Pushed()))
    given(Gate, Locked()).when(Push()).then(Shut())
    given(Gate, Pushed(), Pushed(), Pushed()).when(Push()).then_ended()
    given(Counter).when(Push()).then(Pushed())
    table = transitions(Gate, read_evidence(file))
    assert (table.states, table.commands) == (["Open", "Closed"], ["Lock", "Push"])
    assert table.cells == {
        ("Open", "Lock"): [Outcome("accepted", ("Locked",))],
        ("Open", "Push"): [
            Outcome("accepted", ("Pushed",)),
            Outcome("accepted", ("Pushed", "Pushed")),
            Outcome("ended", ()),
        ],
        ("Closed", "Push"): [Outcome("rejected", ("Shut",))],
    }
    assert table.untested == [("Closed", "Lock")]
    assert as_json(table)["untested"][0] == {"state": "Closed", "command": "Lock"}


def test_only_what_a_test_has_confirmed_is_evidence(file: Path) -> None:
    given(Gate).when(Lock())
    with pytest.raises(AssertionError):
        given(Gate).when(Lock()).then(Shut())
    assert not file.exists()
    given(Gate, Locked()).when(Lock()).then(None)
    assert transitions(Gate, read_evidence(file)).cells == {("Closed", "Lock"): [Outcome("nothing", ())]}


def test_nothing_is_written_when_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAGNETAR_EVIDENCE", raising=False)
    monkeypatch.chdir(tmp_path)
    given(Gate).when(Lock()).then(Locked())
    assert list(tmp_path.iterdir()) == []


def test_states_are_told_apart_by_what_can_be_counted() -> None:
    assert evidence.kinds_of(Light)[:3] == ["day, RED, Closed", "day, RED, None", "day, GREEN, Closed"]
    assert len(evidence.kinds_of(Light)) == 8
    assert evidence.kind_of(Light(), 0) == "day, RED, None"
    assert evidence.kind_of(Light("night", Colour.GREEN, Closed()), 1) == "night, GREEN, Closed"
    assert evidence.kinds_of(Valve) == evidence.kinds_of(Gate) == ["Open", "Closed"]
    assert evidence.kinds_of(Counter) == ["new", "existing", "ended"]
    states = (Counter(), 0), (Counter(1), 1), (Counter(10), 10)
    assert [evidence.kind_of(*state) for state in states] == ["new", "existing", "ended"]


def test_the_table_is_printed_whole_where_there_is_no_edge(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given(Gate).when(Lock()).then(Locked())
    given(Gate, Locked()).when(Push()).then(Shut())
    show(transitions(Gate, read_evidence(file)))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "┃ ┃ Lock ┃ Push ┃" in lines
    assert "│ Open │ Locked │ — │" in lines
    assert "│ Closed │ — │ ✗ Shut │" in lines
    assert lines[-1].startswith("2 of 4 pairs are tested.")


def write_shop(folder: Path, test: str) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "till.py").write_text(
        "from typing import Self\nfrom magnetar import Aggregate, Command, Event\n"
        "class Ring(Command): ...\nclass Rung(Event): ...\n"
        "class Till(Aggregate):\n"
        "    def execute(self, command: Ring) -> Rung: return Rung()\n"
        "    def apply(self, event: Rung) -> Self: return self\n"
    )
    (folder / "tests").mkdir()
    (folder / "tests" / "test_till.py").write_text(
        f"from magnetar.testing import given\nfrom shop.till import *\ndef test_it():\n    {test}\n"
    )


def test_the_users_tests_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, "given(Till).when(Ring()).then(Rung())")
    monkeypatch.chdir(tmp_path)
    (seen,) = gather([Path("tests")])
    assert (seen.aggregate, seen.state, seen.command) == ("shop.till:Till", "new", "Ring")
    assert (seen.outcome, seen.types) == ("accepted", ["Rung"])


def test_tests_that_fail_are_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shop(tmp_path, "given(Till).when(Ring()).then(None)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TestsFailed, match=r"(?s)Till<1@0>, given Ring\(\), decided.*Mend them first"):
        gather([])


def test_where_there_are_no_tests_or_no_evidence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"pytest has found no tests here\. Say where they are"):
        gather([])
    with pytest.raises(SettingsError, match=r"nothing\.jsonl is no evidence"):
        read_evidence(tmp_path / "nothing.jsonl")
    (tmp_path / "other").write_text("hello\n")
    with pytest.raises(SettingsError, match="other is no evidence"):
        read_evidence(tmp_path / "other")
