"""What can be wished of the generations of a pipeline's tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from magnetar.projections.generations import Generations, Origin, Step
from magnetar.schemas import SettingsError


class Wish(StrEnum):
    """What is to become of the generations."""

    REBUILD = "rebuild"
    ROLLBACK = "rollback"
    DROP_OLD = "drop_old"
    CANCEL = "cancel"
    DROP_GONE = "drop_gone"
    """Of no name: the tables of projections that are declared no more are removed."""

    def steps(self, known: Mapping[str, Generations], origin: Origin = Origin.TOPICS) -> dict[str, list[Step]]:
        """By name, the steps to be written down, wherever it is possible. `origin` is that of a rebuild.

        Raises SettingsError, with the first one's reason, if it is possible for none.
        """
        found: dict[str, list[Step]] = {}
        refused: list[SettingsError] = []
        for name, generations in known.items():
            try:
                found[name] = self._steps(generations, origin)
            except SettingsError as error:
                refused.append(SettingsError(f"{name}: {error.what}", cure=error.cure))
        if refused and not found:
            raise refused[0]
        return found

    def _steps(self, generations: Generations, origin: Origin) -> list[Step]:
        match self:
            case Wish.REBUILD:
                return generations.rebuild(origin)
            case Wish.ROLLBACK:
                return generations.rollback()
            case Wish.DROP_OLD:
                return generations.drop_old()
            case Wish.CANCEL:
                return generations.cancel()
            case Wish.DROP_GONE:
                return []
