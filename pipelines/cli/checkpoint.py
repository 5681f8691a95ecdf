"""`checkpoint`: what makes recovery short, built ahead."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from magnetar.schemas import SettingsError

from .shared import AsJson, Data, Target, numbered, opened, print_json


class Action(StrEnum):
    """What to do."""

    BUILD = "build"


def checkpoint(
    _action: Annotated[Action, typer.Argument(metavar="ACTION", help="What to do: `build`.")],
    target: Target,
    aggregate: Annotated[str | None, typer.Option(help="Only this aggregate: `Order`.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Build checkpoints with the code at hand, before workers with that code take over (`build`).

    Code whose states have other fields, or another `revision`, cannot use the checkpoints of the code before: its
    workers would read the log from its start. Workers of any release go on meanwhile; run it again shortly before the
    roll, and only what has come since is read.

    **Example:** `magnetar checkpoint build shop.pipeline`
    """
    import random

    from ..checkpoint_building import CheckpointBuilder
    from ..logging import configure_logging

    configure_logging("warning", role="checkpoint")
    pipeline, _, log = opened(target, data)
    try:
        if aggregate is not None and aggregate not in pipeline.aggregates:
            known = ", ".join(pipeline.aggregates)
            raise SettingsError(f"{pipeline.name} has no aggregate {aggregate!r}.", cure=f"It has {known}.")
        if partition is not None and partition >= pipeline.partitions:
            raise SettingsError(f"There is no partition {partition}.", cure=f"Use 0 to {pipeline.partitions - 1}.")
        for name in [aggregate] if aggregate else pipeline.aggregates:
            builder = CheckpointBuilder(
                log,
                pipeline.aggregates[name],
                pipeline.schemas[name],
                partitions=pipeline.partitions,
                random=random.SystemRandom(),
            )
            for each in range(pipeline.partitions) if partition is None else [partition]:
                built = builder.build(each)
                if json:
                    print_json({"aggregate": name, **built._asdict()})
                else:
                    typer.echo(f"{name} {each}: {_said(built.number, built.read, built.states)}")
    finally:
        log.close()


def _said(number: int, read: int, states: int) -> str:
    if not number:
        return "no commits"
    if not read:
        return f"the checkpoint behind commit {number:,} is there"
    return f"built behind commit {number:,}, {numbered(read, 'commit')} read, {numbered(states, 'state')}"
