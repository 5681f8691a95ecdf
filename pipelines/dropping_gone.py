"""`rebuild --drop-gone`: removing the tables of projections that the pipeline declares no more."""

from __future__ import annotations

from magnetar.projections.endpoint import Endpoint
from magnetar.projections.gone import gone
from magnetar.projections.progress import Ask
from magnetar.schemas import wire_name

from .carrying_out import CarryingOut
from .clock import SystemClock
from .control import TakesWishes, send_wish
from .pipeline import Pipeline
from .runtime import StopSignal
from .settings import Settings
from .status import asking
from .wishes import Wish


def names_gone(ask: Ask, pipeline: Pipeline) -> list[str]:
    """The projections that have tables and are declared no more."""
    return gone(ask, pipeline.name, [wire_name(each) for each in pipeline.projections])


class DroppingGone:
    """An errand, see there. What is gone, the code says that carries it out."""

    def __init__(self, pipeline: Pipeline, names: list[str]) -> None:
        self._pipeline = pipeline
        self.left = names
        """What is not removed yet, or not at all: whoever runs may declare it still."""

    def send(self, endpoint: Endpoint) -> list[str]:
        """See Errand."""
        return send_wish(endpoint, self._pipeline, Wish.DROP_GONE, [])

    def tell(self, projector: TakesWishes) -> None:
        """See Errand."""
        projector.wish(Wish.DROP_GONE, [])

    def look(self, ask: Ask) -> bool:
        """See Errand: it is done when it is written down, whatever is left."""
        self.left = names_gone(ask, self._pipeline)
        return True

    def other_code(self, ask: Ask) -> list[str]:
        """See Errand: any code knows what it does not declare."""
        del ask
        return []


def drop_gone(pipeline: Pipeline, settings: Settings) -> tuple[list[str], list[str]]:
    """Remove them; returns the names of those that are removed, and of those that the code that runs has still."""
    before = names_gone(asking(settings), pipeline)
    errand = DroppingGone(pipeline, before)
    if before:
        CarryingOut(pipeline, settings, errand, SystemClock()).run(StopSignal())
    return [name for name in before if name not in errand.left], errand.left
