"""A rebuild under live writes, with a kill -9 in each of its phases."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.settings import Settings, open_log
from magnetar.projections.generations import Generations, Origin
from magnetar.projections.range_loop import HANDED_OVER

from examples.flights import demo
from examples.flights.data import commands, rows
from examples.flights.pipeline import flights
from tests.chaos.comparing import stored_in, wrong_in_history, wrong_in_mirror
from tests.chaos.comparing_projections import wrong_in_projections
from tests.chaos.processes import Part, answers, parts
from tests.chaos.rebuilding import Command, Rebuilding, Sender
from tests.pulsar_rig import Existing, Standalone, data_folder, started

pytestmark = pytest.mark.xdist_group("chaos")

PROJECTIONS = ("DelaysByRoute", "LateDeparture", "Board", "HourlyDepartures")

WHILE_FILLING = (
    "generation_created:1",
    "filling_after_pending:3",
    "filling_between_tables:2",
    "before_swap:1",
    "swap_recorded:1",
)
"""The places where the projector is killed, one after the other, in one rebuild. The last one ends it."""

WHILE_FILLING_FROM_MIRROR = (
    "generation_created:2",
    "filling_after_pending:3",
    "filling_after_insert:2",
    f"filling_{HANDED_OVER}:2",
    "before_swap:1",
    "swap_recorded:1",
)
"""The same for a rebuild of all projections from the mirror."""


class Stage(Rebuilding):
    """A pipeline that runs and is written to, with somebody who reads."""

    def __init__(self, folder: Path, broker: Existing | None) -> None:
        """The log is the embedded one where no broker is given."""
        self._settings, environment = Settings(data=folder / "data"), dict[str, str]()
        if broker is not None:
            environment = broker.environment(broker.new_tenant())
            named = {name.removeprefix("MAGNETAR_").lower(): value for name, value in environment.items()}
            self._settings = self._settings.model_copy(update=named)
        prepare(flights, self._settings, SystemClock())
        self.worker, self.projector = (Part(folder, role, settings=environment) for role in ("worker", "projector"))
        sender = Sender(self._settings, demo.outgoing(commands(rows(all_months=False)), set()))
        super().__init__(self._settings.data, sender, self.worker, self.projector, environment=environment)

    def start(self, *more: str) -> None:
        """Everything; some commits are in the tables when this returns."""
        self.worker.start()
        self.sender.start()
        self.reader.start()
        self.start_projector(*more)
        self.eventually(lambda: self.mirrored() > 500, "some commits are in the tables")

    def start_projector(self, *more: str) -> None:
        """The projector, which answers when this returns, or is dead again."""
        self.projector.start(*more)
        self.eventually(lambda: self.projector.is_dead() or answers(self.projector), "the projector answers")

    def mirrored(self) -> int:
        """How many commits the shown tables have."""
        return self.rows_of("flights.commits")

    def generations(self, name: str = "Flight") -> Generations:
        """What is fed and shown."""
        return generations_of(self.ask, flights, name)

    def has_died_or_done(self, command: Command) -> bool:
        """Whether the projector is dead, or the command has ended."""
        return self.projector.is_dead() or command.is_over()

    def judge(self) -> None:
        """When all is decided and mirrored: each generation has the rows that a replay of the log gives, no more."""
        self.sender.stop()
        self.eventually(lambda: self.mirrored() >= self.sender.sent, "all is in the tables")
        for generation in self.generations().fed:
            table = f"flights.flight__commits__g{generation}"
            self.eventually(partial(self.has, table, self.sender.sent), f"generation {generation} is fed")
        self.eventually(lambda: demo.commits_in_tables(self.data) >= self.sender.sent, "all is in all shown tables")
        with closing(open_log(self._settings, SystemClock())) as log:
            logs = stored_in(log)
        assert wrong_in_history(logs) == []
        assert wrong_in_projections(self.ask, logs) == []
        for generation in self.generations().fed:
            shown = None if generation == self.generations().shown else generation
            assert wrong_in_mirror(self.ask, logs, shown) == []


@pytest.fixture(scope="module")
def broker() -> Iterator[Standalone]:
    """A real Pulsar."""
    with data_folder() as folder, started(Standalone(folder)) as standalone:
        yield standalone


@pytest.fixture(params=["embedded", pytest.param("pulsar", marks=[pytest.mark.broker, pytest.mark.soak])])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, request.getfixturevalue("broker") if request.param == "pulsar" else None)
    with parts(stage.worker, stage.projector):
        yield stage
        stage.close()


def test_a_rebuild_that_is_killed_in_each_phase_shows_all_that_was_written_meanwhile(stage: Stage) -> None:
    stage.start(f"--at={WHILE_FILLING[0]}:KILL")
    before, command = stage.mirrored(), stage.command()
    for following in (*WHILE_FILLING[1:], None):
        stage.eventually(stage.projector.is_dead, f"it is killed before it can come to {following}")
        if following == "filling_between_tables:2":  # the command dies with it, and is given again
            command.kill()
        stage.start_projector(*([f"--at={following}:KILL"] if following else []))
        if following == "filling_between_tables:2":
            command = stage.command()
    stage.carry_through(command)
    assert stage.mirrored() > before + 100
    assert stage.generations()[:3] == ((1, 2), 2, 1)

    # Back, with a kill between the two views, and forth, with one behind them.
    for failpoint, shown in (("between_views:1", 1), ("after_swap:1", 2)):
        stage.projector.kill()
        stage.start_projector(f"--at={failpoint}:KILL")
        command = stage.command("--rollback")
        stage.eventually(partial(stage.has_died_or_done, command), f"it dies at {failpoint}")
        assert stage.projector.is_dead(), (command.result(), stage.projector.output)
        stage.start_projector()
        stage.carry_through(command)
        assert stage.generations().shown == shown

    stage.judge()
    assert stage.reader.answers
    assert stage.reader.lost == []
    stage.carry_through(stage.command("--drop-old"))
    tables = "SELECT name FROM system.tables WHERE database = 'flights' AND name LIKE '%\\_\\_g1'"
    stage.eventually(lambda: not stage.ask(tables), "the old tables are gone")


@pytest.mark.soak
def test_a_rebuild_from_the_mirror_that_is_killed_in_each_phase_shows_all_that_was_written_meanwhile(
    stage: Stage,
) -> None:
    stage.start(f"--at={WHILE_FILLING_FROM_MIRROR[0]}:KILL")
    before, command = stage.mirrored(), stage.command("--from", "mirror")
    for following in (*WHILE_FILLING_FROM_MIRROR[1:], None):
        stage.eventually(stage.projector.is_dead, f"it is killed before it can come to {following}")
        if following == "filling_after_insert:2":  # the command dies with it, and is given again, without the source
            command.kill()
        stage.start_projector(*([f"--at={following}:KILL"] if following else []))
        if following == "filling_after_insert:2":
            command = stage.command(*PROJECTIONS)
    stage.carry_through(command)
    assert stage.mirrored() > before + 100
    for name in PROJECTIONS:
        assert (stage.generations(name)[:3], stage.generations(name).origin) == (((1, 2), 2, 1), Origin.MIRROR)
    assert stage.generations()[:2] == ((1,), 1)
    stage.judge()


@pytest.mark.soak
def test_a_rebuild_without_a_projector_is_done_by_the_command_and_goes_on_after_a_kill(stage: Stage) -> None:
    stage.start()
    stage.projector.kill()
    command = stage.command()
    begun = lambda: (stage.data / "query-endpoint.json").exists() and stage.generations().last == 2  # noqa: E731
    stage.eventually(lambda: command.is_over() or begun(), "generation 2 is begun")
    command.kill()
    stage.carry_through(stage.command())
    stage.start_projector()
    assert stage.generations().shown >= 2
    stage.judge()
    assert stage.reader.lost == []


def test_a_swap_without_the_comparison_of_the_numbers_takes_from_readers_what_they_have_seen(stage: Stage) -> None:
    stage.start("--sabotage=swapped_while_behind")
    stage.carry_through(stage.command())
    stage.eventually(lambda: stage.reader.lost, "the reader misses commits")
