"""Which commands an aggregate takes in which kind of state, as its tests have shown."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from magnetar.aggregates import contract_of
from magnetar.aggregates.evidence import VARIABLE, Evidence, kinds_of, name_of, read
from magnetar.schemas import MagnetarError, SettingsError
from magnetar.schemas.errors import Fault

# The current folder comes last: the tests find the user's modules there, and none of them hides an installed package.
_PYTEST: Final = "import sys, pytest; sys.path.append(''); sys.exit(pytest.main(sys.argv[1:]))"
_UNTESTED: Final = "—"
_NO_TESTS: Final = 5


class TestsFailed(MagnetarError):
    """Tests that do not pass are no evidence.

    What to do: mend the tests, or the code that they test, and ask again.
    """

    __test__ = False
    fault = Fault.YOURS


class Outcome(NamedTuple):
    """What was seen: `outcome` is accepted, nothing, rejected or ended; `types` are its events or its rejection."""

    outcome: str
    types: tuple[str, ...]

    def __str__(self) -> str:
        names = " + ".join(self.types) or self.outcome
        return names if self.outcome in ("accepted", "nothing") else f"✗ {names}"


class Transitions(NamedTuple):
    """The table. `cells` has the outcomes that were confirmed, by kind of state and command."""

    aggregate: str
    states: list[str]
    commands: list[str]
    cells: dict[tuple[str, str], list[Outcome]]

    @property
    def untested(self) -> list[tuple[str, str]]:
        """The pairs of state and command that no test has shown."""
        return [(state, each) for state in self.states for each in self.commands if not self.cells.get((state, each))]


def gather(tests: Sequence[Path]) -> list[Evidence]:
    """Run the user's tests with pytest, and give what they have confirmed.

    Raises SettingsError if there is no pytest or no test, and TestsFailed, with what pytest said, if a test fails.
    """
    if find_spec("pytest") is None:
        raise SettingsError("The tests cannot be run: pytest is not installed.", cure="pip install pytest")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "evidence.jsonl"
        ran = subprocess.run(
            [sys.executable, "-P", "-c", _PYTEST, "-q", *map(str, tests)],
            env={**os.environ, VARIABLE: str(file)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode == _NO_TESTS:
            raise SettingsError("pytest has found no tests here.", cure="Say where they are: --tests PATH")
        if ran.returncode:
            raise TestsFailed(f"The tests do not pass.\n{ran.stdout}{ran.stderr}", cure="Mend them first.")
        return list(read(file)) if file.exists() else []


def read_evidence(file: Path) -> list[Evidence]:
    """What an earlier run of the tests has confirmed. Raises SettingsError if the file is not there, or not that."""
    try:
        return list(read(file))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{file} is no evidence: {error}.", cure=f"Let the tests write one: {VARIABLE}={file} pytest"
        ) from error


def transitions(aggregate: type[Any], evidence: Iterable[Evidence]) -> Transitions:
    """Sort the evidence of one aggregate into a table, which has untested pairs too."""
    contract = contract_of(aggregate)
    states = kinds_of(aggregate)
    cells: dict[tuple[str, str], list[Outcome]] = {}
    for each in (each for each in evidence if each.aggregate == name_of(aggregate)):
        seen = cells.setdefault((each.state, each.command), [])
        if (found := Outcome(each.outcome, tuple(each.types))) not in seen:
            seen.append(found)
    states += [state for state in dict.fromkeys(state for state, _ in cells) if state not in states]
    return Transitions(aggregate.__name__, states, [command.__name__ for command in contract.commands], cells)


def as_json(table: Transitions) -> dict[str, Any]:
    """The table for programs."""
    seen = [
        {"state": state, "command": command, "outcome": outcome, "types": list(types)}
        for (state, command), outcomes in table.cells.items()
        for outcome, types in outcomes
    ]
    untested = [{"state": state, "command": command} for state, command in table.untested]
    return {
        "aggregate": table.aggregate,
        "states": table.states,
        "commands": table.commands,
        "seen": seen,
        "untested": untested,
    }


def show(table: Transitions) -> None:
    """Print the table for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no edge at which names would have to be broken
    grid = Table(title=f"{table.aggregate}: what its tests have shown", title_justify="left", show_lines=True)
    for heading in ("", *table.commands):
        grid.add_column(heading, overflow="fold")
    for state in table.states:
        cells = [Text(state)]
        for command in table.commands:
            outcomes = table.cells.get((state, command), [])
            lines = [Text(str(each), style="red" if str(each).startswith("✗") else "") for each in outcomes]
            cells.append(Text("\n").join(lines) if lines else Text(_UNTESTED, style="dim"))
        grid.add_row(*cells)
    console.print(grid)
    pairs = len(table.states) * len(table.commands)
    console.print(
        f"{pairs - len(table.untested)} of {pairs} pairs are tested. ✗: rejected, or after the end. —: not tested."
    )
