"""A trial of what a pipeline makes in ClickHouse: on an empty engine in a temporary folder, before anything starts."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

from .event_source import along
from .pipeline import Pipeline


def try_tables(pipeline: Pipeline) -> None:
    """Make the pipeline's tables, views and projections as its projector would, where nothing else is.

    It takes about half a second, and this process opens the engine for it. Nothing is tried where there are no
    projections, or where the engine is not installed. Raises DeclarationError for a projection that does not fit.
    """
    if not pipeline.projections or find_spec("chdb") is None:
        return
    from magnetar.projections.store import Store, embedded_dsn

    from .clock import SystemClock
    from .logs.sqlite import SqliteLog
    from .projector import Projector
    from .settings import Settings

    with tempfile.TemporaryDirectory(prefix="magnetar-trial-", ignore_cleanup_errors=True) as folder:
        settings, clock = Settings(data=Path(folder) / "data"), SystemClock()
        log, store = SqliteLog(settings.data, clock), Store(embedded_dsn(settings.data))
        try:
            for each in along(pipeline):  # what is read comes first: views may be over its views
                projector = Projector(each, log, store, settings, clock=clock)
                try:
                    projector.prepare()
                finally:
                    projector.close()
        finally:
            store.close()
            log.close()
