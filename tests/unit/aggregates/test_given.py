"""The test kit: what it finds, and how it says it."""

import enum
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

import pytest
from magnetar.aggregates import Aggregate, given
from magnetar.schemas import Command, Event, Meta, Rejection, State


class Put(Command):
    value: int


class Close(Command):
    pass


class PutDone(Event):
    value: int
    by: str
    at: datetime


class Closed(Event):
    pass


class Full(Rejection):
    most: int
    asked: float


class Part(State):
    values: tuple[int, ...] = ()


class Empty(State):
    pass


class Box(Aggregate):
    content: Empty | Part = Empty()
    is_open: bool = True

    def execute(
        self, command: Put | Close, meta: Meta
    ) -> PutDone | tuple[PutDone, Closed] | tuple[PutDone, ...] | Closed | Full | None:
        match command:
            case Put(0):
                return None
            case Put(value) if value > 100:
                return Full(100, value / 2)
            case Put(100):
                return PutDone(100, meta.id, meta.at), Closed()
            case Put(value):
                return PutDone(value, f"{meta.actor}/{meta.correlation_id}/{meta.version}", meta.at)
            case Close():
                return Closed()

    def apply(self, event: PutDone | Closed) -> Self:
        match event:
            case PutDone(value):
                return self.replace(content=Part((value,)))
            case Closed():
                return self.replace(is_open=False)

    def is_ended(self) -> bool:
        return not self.is_open


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ONE = PutDone(1, "", NOON)


def test_the_brain_is_told_what_a_worker_would_tell_it() -> None:
    given(Box, ONE, ONE, id="b").when(Put(5), actor="anna", at=NOON, correlation_id="c").then(
        PutDone(5, "anna/c/2", NOON)
    )
    given(Box, id="b").when(Put(100), at=NOON).then((PutDone(100, "b", NOON), Closed()))
    assert given(Box, ONE).when(Put(0)).outcome is None
    assert given(Box).when(Put(100)).state.content == Part((100,))


def test_a_long_history_of_different_events_is_taken() -> None:
    given(Box, ONE, ONE, ONE, ONE, ONE, ONE, Closed()).when(Put(1)).then_ended()


def test_what_comes_after_the_end_is_parked_and_the_brain_is_not_asked() -> None:
    asked = given(Box, ONE, Closed()).when(Put(1))
    asked.then_ended()
    with pytest.raises(AssertionError, match=r"Box<1@2>, given Put\(value=1\), had ended: a worker parks the command"):
        asked.then(None)
    with pytest.raises(AssertionError, match=r"`\.then_ended\(\)`"):
        _ = asked.outcome
    with pytest.raises(AssertionError, match=r"Box<1@0>, given Close\(\), had not ended, and decided:\n  Closed\(\)"):
        given(Box).when(Close()).then_ended()


def message_of(asked: Any, expected: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        asked.then(expected)
    return str(caught.value)


def test_a_failure_names_the_fields_that_differ() -> None:
    assert message_of(given(Box).when(Put(200)), Full(99, 100.0)).splitlines() == [
        "Box<1@0>, given Put(value=200), decided something else",
        "  expected: Full(most=99, asked=100.0)",
        "  got:      Full(most=100, asked=100.0)",
        "  .most: expected 99, got 100",
    ]
    told = message_of(given(Box).when(Put(100), at=NOON), (PutDone(7, "x", NOON), Closed()))
    assert told.splitlines()[3:] == ["  [0].value: expected 7, got 100", "  [0].by: expected 'x', got '1'"]


@pytest.mark.parametrize("expected", [None, Closed(), Full(1, 2.0), (ONE, ONE), ()])
def test_an_outcome_of_another_kind_is_shown_whole(expected: Any) -> None:
    told = message_of(given(Box).when(Put(100), at=NOON), expected)
    assert told.splitlines()[1] == f"  expected: {expected!r}"
    assert len(told.splitlines()) == 3 or "[1]: expected" in told


FAILING = """
from magnetar import Aggregate, Command, Event
from magnetar.testing import given


class Ring(Command):
    times: int


class Rang(Event):
    times: int


class Bell(Aggregate):
    def execute(self, command: Ring) -> Rang:
        if command.times == 13:
            raise LookupError("unlucky")
        return None if command.times == 0 else Rang("often" if command.times == 99 else command.times)

    def apply(self, event: Rang):
        return None if event.times == 2 else self


def test_another_outcome():
    given(Bell).when(Ring(1)).then(Rang(3))


def test_nothing_where_something_is_declared():
    given(Bell).when(Ring(0))


def test_a_field_of_another_type():
    given(Bell).when(Ring(99))


def test_a_history_that_cannot_be():
    given(Bell, Rang(2))


def test_no_end():
    given(Bell).when(Ring(1)).then_ended()


def test_a_brain_that_raises():
    given(Bell).when(Ring(13))
"""


def test_a_failure_shows_the_users_lines_and_none_of_the_kits(tmp_path: Path) -> None:
    (tmp_path / "test_bell.py").write_text(FAILING)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "test_bell.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = [line for line in ran.stdout.splitlines() if re.match(r"\S+:\d+:", line)]
    assert "6 failed" in ran.stdout, ran.stdout
    assert [line.partition(":")[0] for line in shown] == ["test_bell.py"] * 7, ran.stdout  # the last one's two frames
    assert "direct cause" not in ran.stdout
    assert re.search(r"^E +\.times: expected 3, got 1$", ran.stdout, re.MULTILINE)


def test_events_of_the_same_shape_are_told_apart() -> None:
    class Opened(Event):
        pass

    assert "Opened()" in message_of(given(Box).when(Close()), Opened())


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(AssertionError, match="has no time zone"):
        given(Box).when(Put(1), at=datetime(2026, 1, 1))


def test_what_is_not_the_aggregates_is_refused() -> None:
    other: Any = Box
    with pytest.raises(AssertionError, match=r"Box\.apply does not take Full"):
        given(other, Full(1, 2.0))
    with pytest.raises(AssertionError, match=r"Box\.execute does not take Closed"):
        given(other).when(Closed())


WRONG: Any = "one"


class Broken(Aggregate):
    """Its command says what is to go wrong."""

    count: int = 0
    stage: Empty | Part = Empty()
    names: tuple[str, ...] = ()
    ratio: float = 0.0

    def execute(self, command: Put) -> PutDone | Closed | Full:
        outcomes: dict[int, Any] = {
            1: None,
            2: [Closed()],
            3: (Closed(), Full(1, 1.0)),
            4: "text",
            5: PutDone(WRONG, "", NOON),
            6: Full(WRONG, 1.0),
            7: PutDone(1, "", datetime(2026, 1, 1)),
            8: PutDone(2**70, "", NOON),
            9: self._generated(),
            10: self._awaited(),
            11: (Closed(), Closed()),
            12: ONE,
        }
        if command.value != 10:
            outcomes[10].close()
        found: PutDone | Closed | Full = outcomes[command.value]
        return found

    def _generated(self) -> Iterator[Closed]:
        yield Closed()

    async def _awaited(self) -> Closed:
        return Closed()

    def apply(self, event: PutDone | Closed) -> Self:
        if isinstance(event, Closed):
            return self
        wrong: dict[int, Any] = {
            1: None,
            2: Box(),
            3: self.replace(count=WRONG),
            4: self.replace(stage=Part((WRONG,))),
            5: self.replace(stage=Closed()),
            6: self.replace(names=["a"]),
            7: self.replace(count=True),
            8: self.replace(names=(object(),)),
            9: self.replace(count=2**70),
            10: self.replace(ratio=1, names=("a",), stage=Part((3,))),
            11: self.replace(ratio=float("nan")),
        }
        state: Self = wrong[event.value]
        return state


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, r"Broken<1@0>, given Put\(value=1\), would be parked: execute returned None.*perhaps no case matched"),
        (2, "a list: several events are returned as a tuple"),
        (3, "a tuple of Closed, Full that its annotation does not declare"),
        (4, "execute returned a str that its annotation does not declare"),
        (5, "could not be stored, and its command would be parked: PutDone: Expected `int`, got `str`"),
        (6, "could not be stored, and its command would be parked: Full: Expected `int`, got `str`"),
        (7, "could not be stored.*PutDone.at is 2026-01-01T00:00:00, a time without a time zone"),
        (8, "could not be stored"),
        (9, "a generator: several events are returned as a tuple"),
        (10, "a coroutine: it must not be async"),
        (11, "a tuple of Closed, Closed that its annotation does not declare"),
        (12, r"Broken\.apply returned None|apply returned None for PutDone, and has to return a Broken"),
    ],
)
def test_what_a_worker_would_park_fails(value: int, words: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        given(Broken).when(Put(value))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "apply returned None for PutDone, and has to return a Broken"),
        (2, "apply returned a Box for PutDone, and has to return a Broken"),
        (
            3,
            r"After PutDone\(value=3.*made Broken\(count='one'.*but Broken.count: Expected `int`, got `str`",
        ),
        (4, r"but Broken.stage.values\[0?\.*\]: Expected `int`, got `str`"),
        (5, "but Broken.stage"),
        (6, r"but Broken.names is \['a'\], and would be read as \('a',\)"),
        (7, "but Broken.count: Expected `int`, got `bool`"),
        (8, "but Broken.names cannot be stored"),
        (9, "but Broken.count"),
    ],
)
def test_a_state_that_apply_broke_is_named_with_its_field(value: int, words: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){words}"):
        given(Broken, PutDone(value, "", NOON))


@pytest.mark.parametrize("value", [10, 11])
def test_a_state_whose_values_fit_is_taken(value: int) -> None:
    given(Broken, PutDone(value, "", NOON))


class Grade(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Rich(Aggregate):
    """A field of each type that a state may have."""

    flag: bool = False
    text: str = ""
    raw: bytes = b""
    price: Decimal = Decimal(0)
    day: date = date(2026, 1, 1)
    hour: time = time(12)
    at: datetime = NOON
    took: timedelta = timedelta(0)
    key: UUID = UUID(int=0)
    grade: Grade = Grade.GOOD
    word: Literal["a", "b"] = "a"
    perhaps: int | None = None
    names: frozenset[str] = frozenset()
    pair: tuple[int, str] = (0, "")
    parts: tuple[Part, ...] = ()

    def execute(self, command: Put) -> Closed:
        return Closed()

    def apply(self, event: Closed) -> Self:
        name, value = CHANGE
        return self.replace(**{name: value})


CHANGE: tuple[str, Any] = ("flag", True)


@pytest.mark.parametrize(
    ("field", "good", "wrong"),
    [
        ("flag", True, 1),
        ("text", "ü", b"x"),
        ("raw", b"\x00", "AA=="),
        ("price", Decimal("1.50"), "1.50"),
        ("price", Decimal("NaN"), 1.5),
        ("day", date(2026, 2, 2), "2026-02-02"),
        ("hour", time(1, 2, 3), "01:02:03"),
        ("at", NOON, "2026-05-01T12:00:00Z"),
        ("took", timedelta(seconds=1.5), 1.5),
        ("key", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("grade", Grade.BAD, "bad"),
        ("word", "b", "c"),
        ("perhaps", None, "None"),
        ("names", frozenset({"a", "b"}), {"a", "b"}),
        ("pair", (1, "x"), ("x", 1)),
        ("parts", (Part((1,)), Part()), ((1,),)),
    ],
)
def test_a_field_of_any_type_is_judged(field: str, good: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CHANGE", (field, good))
    given(Rich, Closed())
    monkeypatch.setattr(sys.modules[__name__], "CHANGE", (field, wrong))
    with pytest.raises(AssertionError, match=rf"but Rich\.{field}"):
        given(Rich, Closed())
