"""Plays a change of the flights' rules, from the save to the roll-back: `python -m tools.record_change`.

`docs/changing.md` is what it writes; a test plays it again and compares.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import Final

from tools.stage import COLUMNS, Stage, Terminal

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ROOT / "docs" / "changing.md"

DEMO: Final = "python -m examples.flights.demo --first 1000"
DEV: Final = "magnetar dev examples.flights"
LATE: Final = (
    'magnetar query "SELECT count() AS late, min(delay_minutes) AS least FROM flights.late_departure" --format jsonl'
)
ASK: Final = "magnetar ask examples.flights Flight XX1@2013-01-31T09Z "
ASKED: Final = (
    """Schedule '{"carrier": "XX", "origin": "JFK", "dest": "BOS", "departs_at": "2013-01-31T09:00:00Z"}'""",
    """Depart '{"at": "2013-01-31T13:00:00Z"}'""",
)

WAITING: Final = "Waiting(carrier, origin, dest, departs_at)"
RULE: Final = (
    ("from datetime import datetime\n", "from datetime import datetime, timedelta\n"),
    (
        f"            case {WAITING}, Depart(at):\n",
        (
            f"            case {WAITING}, Depart(at) if at - departs_at > timedelta(hours=3):\n"
            "                return Cancelled(carrier, origin, dest, departs_at)\n"
            f"            case {WAITING}, Depart(at):\n"
        ),
    ),
)
"""A flight that would leave more than three hours late does not leave any more."""

TABLE: Final = (
    ("LATE_MINUTES = 60\n", "LATE_MINUTES = 30\n"),
    (
        '    """The flights that left an hour late, or more."""\n',
        '    """The flights that left half an hour late, or more."""\n\n    revision = 2\n',
    ),
)
"""What counts as late is half as much."""

PAGE = """# A change, from the save to the roll-back

The [flights](../examples/flights) under `magnetar dev` while a rule of `Flight` is changed, and then one of the tables:
what is said on each save, the swap, and the way back. `make recordings` plays it on a terminal of {columns} columns and
writes this page; a test plays it again, and compares all but times and processes. [What a change does to
history](diff.md) says how it works.

There are two kinds of rules, and what a change of them means is not the same:

- A rule of an *aggregate* decides commands. What it has decided is in the log, and stays there: another rule decides
  what comes from now on. `dev` says which of the recorded commands it would have decided otherwise. There is nothing to
  swap, and to go back is to save the old rule again.
- A rule of a *projection* makes rows of what is in the log. It can make them all anew: into a table beside the one that
  is shown, which is then *swapped* in, and can be swapped back.

## A thousand flights

{}
`…` stands for the tables that it prints.

## A rule of `Flight`

Who would leave more than three hours late does not leave any more. In `examples/flights/flight.py`:

{}
It is saved, and the first terminal goes on. (Lines of the parts' logs are left out on this page.)

{}
The commands of a sample come first, since they take no ClickHouse, which is just being started anew; then the rows of
the sample, if some differ, or that none does; then all of it.

The table of late departures is the same as before: the flights did leave, and the log says so. The new rule holds from
now on:

{}
## A rule of a table

A change of what a projection makes of events takes another `revision` in the same save. Without one, the projector
takes the table for as good as before: from the save on, new events enter the table that is shown by the new rule,
beside rows of the old one, and a rollback after a rebuild brings back both.

Half an hour is late enough. In `examples/flights/pipeline.py`, with another `revision`, so that everybody sees that
this table is not the one of before:

{}
Saved (`…` stands for what is said of the sample):

{}
The last two lines are the offer. Until it is taken, the table that is shown is that of the old rule, as it was when the
new one was saved: `dev` warns that a rebuild is due.

## The swap

{}
## The way back

First the old rules, with `git checkout examples/flights`, or as your editor undoes it: a table is gone on with by the
code that has filled it. The first terminal:

{}
The one command that the new rule had decided stays decided: the old rule would have let this flight go. The table that
was shown before is there still, and is shown again at once:

{}"""

_LOGGED: Final = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[.*\n?", re.MULTILINE)
_LIVE: Final = re.compile(r"^aggregate +undecided(.|\n)*", re.MULTILINE)
_OFFERED_TWICE: Final = r"--rollback goes back(.|\n)*--rollback goes back"
"""Of the sample, and of all."""


def last_answer(said: str) -> str:
    """The last one, and a sign for those before it."""
    return "…\n" + said[said.rindex("magnetar dev:") :]


class Change:
    """`magnetar dev` on its terminal, and what is saved meanwhile."""

    def __init__(self, folder: Path, terminal: Terminal) -> None:
        self._folder = folder
        self._terminal = terminal
        self._read = 0

    def read_until(self, pattern: str) -> str:
        """What it has said since it was read last, without the table that it draws below that, and the parts' logs."""
        shown = self._terminal.read_until(pattern, behind=self._read)
        said = _LIVE.sub("", shown)
        self._read += len(said)
        return _LOGGED.sub("", said).strip("\n")

    def save(self, name: str, *changes: tuple[str, str]) -> str:
        """Change a file, as an editor does; the difference."""
        file = self._folder / name
        before = after = file.read_text()
        for old, new in changes:
            if old not in after:
                raise ValueError(f"{name} has no {old!r}")
            after = after.replace(old, new)
        file.write_text(after)
        lines = unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm="")
        return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def recorded(folder: Path) -> str:
    """The page, played in an empty folder."""
    stage = Stage(folder)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    filled = stage.run(DEMO).partition("✓")
    begun = [f"$ {DEMO}\n…\n✓{filled[2]}", stage.export("MAGNETAR_DATA", ".demo"), f"$ {DEV}"]
    terminal = stage.start(DEV)
    dev = Change(folder, terminal)
    try:
        begun.append(dev.read_until(r"queries are answered(.|\n)*Flight +0 +\d"))
        rule = dev.save("examples/flights/flight.py", *RULE)
        answers = dev.read_until("nothing to swap")
        new = [stage.run(LATE), *(stage.run(ASK + each) for each in ASKED)]
        table = dev.save("examples/flights/pipeline.py", *TABLE)
        offered = dev.read_until(_OFFERED_TWICE)
        swapped = [stage.run(LATE), stage.run("magnetar rebuild examples.flights --changed"), stage.run(LATE)]
        dev.save("examples/flights/flight.py", *((new, old) for old, new in RULE))
        dev.save("examples/flights/pipeline.py", *((new, old) for old, new in TABLE))
        undone = dev.read_until(_OFFERED_TWICE)
        back = [stage.run("magnetar rebuild examples.flights --rollback"), stage.run(LATE)]
    finally:
        terminal.stop()
    return PAGE.format(
        stage.written(begun),
        stage.written([rule], "diff"),
        stage.written([answers]),
        stage.written(new),
        stage.written([table], "diff"),
        stage.written([last_answer(offered)]),
        stage.written(swapped),
        stage.written([last_answer(undone)]),
        stage.written(back),
        columns=COLUMNS,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        Path(sys.argv[1] if len(sys.argv) > 1 else WRITTEN).write_text(recorded(Path(home)))
