"""Whether tables were filled from the log that a projector reads: their places in it mean nothing in another one."""

from __future__ import annotations

import contextlib

from magnetar.projections.leased_table import of_another_log
from magnetar.projections.progress import Ask, incarnations
from magnetar.schemas import LogUnavailable, SettingsError

from .log import Log
from .pipeline import Pipeline
from .targets import targets_of


def check_same_log(ask: Ask, log: Log, pipeline: Pipeline) -> None:
    """Raises SettingsError if all that is in the tables of an aggregate is from another log."""
    read = {aggregate for target in targets_of(pipeline).values() for aggregate in target.aggregates}
    for aggregate, found in incarnations(ask, pipeline.name).items():
        if aggregate not in read:
            continue
        with contextlib.suppress(LogUnavailable):  # another context's topic may not be there yet
            if log.describe(pipeline.events_of(aggregate).topic).incarnation not in found:
                what, cure = of_another_log(f"{pipeline.name}/{aggregate}")
                raise SettingsError(what, cure=cure)
