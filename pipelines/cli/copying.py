"""`copy`: a context's log in a new context, with another number of partitions."""

from __future__ import annotations

from typing import Annotated

import typer

from .shared import AsJson, Data, Target, numbered, opened, print_json


def copy(
    target: Target,
    to: Annotated[str, typer.Option("--to", metavar="CONTEXT", help="The name of the new context.")],
    partitions: Annotated[int, typer.Option("--partitions", help="How many partitions it has.")],
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Copy a pipeline's log into a new context with another number of partitions.

    All commands must be decided, and no parked one be open: stop what sends first. Every commit gets its new place and
    number, all of it is compared, and only then do workers take the new context. Killed or interrupted, it goes on when
    you run it again. The old context stays as it is. Afterwards give the pipeline the new name and number.

    **Example:**

    `magnetar copy shop.pipeline --to shop2 --partitions 64`
    """
    import random

    from ..clock import SystemClock
    from ..copy_progress import CopyLines
    from ..copying import Copying
    from ..logging import configure_logging

    configure_logging("warning", role="copy")
    pipeline, _, log = opened(target, data)
    clock, done = SystemClock(), dict[str, int]()
    lines = CopyLines(clock, lambda line: None if json else typer.echo(line, err=True))
    try:
        copying = Copying(pipeline, log, to=to, partitions=partitions, clock=clock, random=random.SystemRandom())
        lines.begin(pipeline.name, to)
        for progress in copying.run():
            lines.show(progress)
            if progress.doing == "done":
                done[progress.aggregate] = progress.total
    finally:
        log.close()
    if json:
        print_json({"context": to, "partitions": partitions, "commits": done})
    else:
        for aggregate, commits in done.items():
            typer.echo(f"{aggregate}: {numbered(commits, 'commit')} copied and compared.")
        typer.echo(f"Now declare it: Pipeline({to!r}, …, partitions={partitions}). {pipeline.name} stays as it is.")
