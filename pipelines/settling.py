"""What is done with quarantined keys: retried or dropped by the projector that runs, or else by one in this process."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from magnetar.projections.endpoint import Endpoint
from magnetar.projections.progress import Ask, fingerprints
from magnetar.projections.quarantine import QuarantinedKey, Settled, quarantined, settled
from magnetar.schemas import QueryRefused, SettingsError

from .control import KeyWish, Settling, TakesWishes, send_settling
from .pipeline import Pipeline
from .rebuild_status import generations_of, is_outgrown
from .targets import targets_of


class SettlingKeys:
    """A retry or a drop of some keys, as an errand of CarryingOut. `found` is what has become of them."""

    def __init__(
        self, pipeline: Pipeline, keys: Sequence[QuarantinedKey], *, is_drop: bool, reason: str, actor: str
    ) -> None:
        self._pipeline = pipeline
        wished = tuple(KeyWish(k.projection, k.aggregate, k.partition, k.id, secrets.token_hex(16)) for k in keys)
        self._settling = Settling("drop" if is_drop else "retry", wished, reason, actor)
        self._keys = {wish.nonce: key for wish, key in zip(wished, keys, strict=True)}
        self.found: dict[str, tuple[QuarantinedKey, Settled]] = {}

    def send(self, endpoint: Endpoint) -> list[str]:
        """See Errand."""
        return send_settling(endpoint, self._pipeline, self._settling)

    def tell(self, projector: TakesWishes) -> None:
        """See Errand."""
        projector.settle(self._settling)

    def look(self, ask: Ask) -> bool:
        """See Errand."""
        still = {
            (key.projection, key.generation, key.aggregate, key.partition, key.id)
            for key in quarantined(ask, self._pipeline.name)
        }
        for nonce, said in settled(ask, self._keys):
            key = self._keys[nonce]
            is_open = (key.projection, key.generation, key.aggregate, key.partition, key.id) in still
            if said.generation == key.generation and (said.is_tried or not is_open):
                self.found[nonce] = key, said
        return len(self.found) == len(self._keys)

    def other_code(self, ask: Ask) -> list[str]:
        """See Errand: of the shown tables, a projector feeds those alone that its code has filled."""
        del ask
        return []


def shown_quarantined(ask: Ask, pipeline: Pipeline) -> list[QuarantinedKey]:
    """What is quarantined in the tables that are shown; nothing where no projector that knows of it has run."""
    try:
        found = quarantined(ask, pipeline.name)
    except QueryRefused as error:
        if re.search(r"UNKNOWN_(TABLE|DATABASE)", error.what):
            return []
        raise
    targets = targets_of(pipeline)
    shown = {
        name: generations_of(ask, pipeline, name).shown for name in {each.projection for each in found} & targets.keys()
    }
    return [each for each in found if each.generation == shown.get(each.projection)]


def refuse_outgrown(ask: Ask, pipeline: Pipeline, keys: Sequence[QuarantinedKey]) -> None:
    """Raise SettingsError if a key is kept from a table that other code has filled: no projector feeds it any more."""
    found, targets = fingerprints(ask, pipeline.name), targets_of(pipeline)
    for name, generation in dict.fromkeys((key.projection, key.generation) for key in keys):
        if is_outgrown(pipeline, targets[name], generation, found):
            raise SettingsError(
                f"{name} has changed since its table was filled: that is fed no more, so that nothing is let into it.",
                cure="`magnetar rebuild` with the pipeline's module and --changed fills a new table by this code. What "
                "it takes is not kept back there.",
            )
