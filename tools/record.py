"""Plays the main flows on a terminal of a fixed width, and writes what it shows: `python -m tools.record`.

`docs/recordings.md` is what it writes; a test plays it again and compares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tools.stage import COLUMNS, Stage

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ROOT / "docs" / "recordings.md"

DEV = "magnetar dev shop.pipeline"
ORDER = "magnetar {} shop.pipeline Order 42"
OLD = "018a0000-0000-7000-8000-000000000001"
"""An id that was made in 2023: a command that comes under it now could be a repeat, and is parked."""

FLOWS = (
    (
        (ORDER.format("send") + """ Buy '{"sku": "tea", "pieces": 2}'""",),
        (ORDER.format("ask") + " Ship",),
        (ORDER.format("ask") + """ Buy '{"sku": "cup", "pieces": 0}'""",),
    ),
    (
        ('magnetar query "SELECT sku, sold FROM shop.best_sellers"', "tea"),
        ('magnetar query "SELECT outcome, count() AS n FROM shop.commits GROUP BY outcome" --format csv', "rejected"),
        (ORDER.format("history"),),
        (ORDER.format("history") + " --version 1",),
    ),
    (
        (ORDER.format("ask") + f""" Buy '{{"sku": "cup", "pieces": 6}}' --command-id {OLD}""",),
        ("magnetar parked shop.pipeline",),
        (f"magnetar parked shop.pipeline show {OLD}",),
        (f"magnetar parked shop.pipeline retry {OLD}",),
    ),
    (("magnetar rebuild shop.pipeline",), ("magnetar rebuild shop.pipeline --status",)),
    (
        (
            "magnetar status shop.pipeline",
            r"Order +16 +5 +0 +0 (.|\n)*best_sellers +Order +2 +5 +0(.|\n)*mirror .* 5 +0",
        ),
        ("magnetar topology shop.pipeline",),
    ),
)
"""By section of the page, its commands, each with what it must show where it has to wait for that."""

PAGE = """# Recordings

What the main flows show on a terminal of {columns} columns. `make recordings` plays them and writes this page. A test
plays them again, and compares all but ids, times, ports and processes.

## A new project, and running it

{}
## In a second terminal: commands

{}
## What became of them

{}
## A parked command

The id of this command was made in 2023. It could be a repeat of one that nobody remembers any more, so it is not
decided before somebody has looked at it.

{}
## New tables from the log

{}
## How it is doing, and how it is wired

{}
## The first terminal, meanwhile

{}"""


def recorded(folder: Path) -> str:
    """The page, played in an empty folder."""
    stage = Stage(folder)
    begun = [stage.run("magnetar new shop"), stage.go_to("shop"), f"$ {DEV}"]
    dev = stage.start(DEV)
    try:
        begun.append(dev.read_until(r"queries are answered(.|\n)*Order +0 "))
        parts = [stage.written(begun), *(stage.written([stage.run(*step) for step in flow]) for flow in FLOWS)]
        busy = [f"$ {DEV}", dev.read_until(r"Order +0 +3 +0 +1 "), "^C", dev.stop().splitlines()[-1]]
    finally:
        dev.stop()
    return PAGE.format(*parts, stage.written(busy), columns=COLUMNS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        Path(sys.argv[1] if len(sys.argv) > 1 else WRITTEN).write_text(recorded(Path(home)))
