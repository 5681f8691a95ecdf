"""Carrying a wish out: by the projector that runs, or, if none does, by one in this process until it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final, Protocol, TypeAlias

import httpx
import structlog
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.generations import Origin
from magnetar.projections.progress import Ask, fingerprints
from magnetar.projections.query import ask_endpoint, read_endpoint
from magnetar.projections.store import Store
from magnetar.projections.supervised import is_supervised
from magnetar.schemas import DataFolderError, MagnetarError, QueryRefused, SettingsError, StoreUnavailable

from .clock import Clock
from .control import TakesWishes, send_wish
from .pipeline import Pipeline
from .projector import Projector
from .projector_process import run_projector
from .rebuild_status import GenerationStatus, generations_of, is_outgrown, statuses
from .settings import Settings, open_log
from .targets import Target, target_of
from .wishes import Wish
from .wishing import Wishing

LOOK_SECONDS: Final = 0.3
"""How often it is looked how far it is."""

GRACE_SECONDS: Final = 60.0
"""A projector that answered and was killed is started again by whoever looks after it: so long it is waited for. One
that was stopped has removed its endpoint's file, and is not."""

COMES_BACK_SECONDS: Final = 20.0
"""The same for one that was killed before this began, and without a `magnetar dev` that would start it again."""

TAKEN_SECONDS: Final = 15.0
"""After so long on a server it is said that a projector is needed."""

GIVE_UP_SECONDS: Final = 60.0
"""A process that has the engine open and does not answer for so long is not waited for any longer."""

Show: TypeAlias = Callable[[Sequence[GenerationStatus]], None]


def asking(endpoint: Endpoint) -> Ask:
    """Ask a running projector. Raises httpx.TransportError if it is gone."""

    def ask(sql: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in ask_endpoint(endpoint, sql, "JSONEachRow").splitlines()]

    return ask


class Errand(Protocol):
    """What is to be carried out."""

    def send(self, endpoint: Endpoint) -> list[str]:
        """Have a running projector write it down, unless it has other code of the projections that are given then.

        Raises what it raises, and httpx.TransportError if it is gone.
        """
        ...

    def tell(self, projector: TakesWishes) -> None:
        """Write it down where the tables are, from this process."""
        ...

    def look(self, ask: Ask) -> bool:
        """Whether it is done."""
        ...

    def other_code(self, ask: Ask) -> list[str]:
        """The projections that a projector is at with other code than this process has, as far as can be seen."""
        ...


class Regenerating:
    """A wish for generations, as an errand."""

    def __init__(
        self, pipeline: Pipeline, names: Sequence[str], wish: Wish, show: Show, *, origin: Origin = Origin.TOPICS
    ) -> None:
        self._pipeline, self._names, self._wish, self._show = pipeline, names, wish, show
        self._origin = origin

    def send(self, endpoint: Endpoint) -> list[str]:
        """See Errand."""
        return send_wish(endpoint, self._pipeline, self._wish, self._names, self._origin)

    def tell(self, projector: TakesWishes) -> None:
        """See Errand."""
        projector.wish(self._wish, self._names, self._origin)

    def look(self, ask: Ask) -> bool:
        """See Errand."""
        # In this order: a swap between the two questions would leave the picture from before it as the last one.
        done = all(generations_of(ask, self._pipeline, each).wanted is None for each in self._names)
        self._show(statuses(ask, self._pipeline, self._names))
        return done

    def other_code(self, ask: Ask) -> list[str]:
        """See Errand: what is being filled says by which code."""
        return [name for name in self._names if self._is_other(ask, target_of(self._pipeline, name))]

    def _is_other(self, ask: Ask, target: Target) -> bool:
        filling = generations_of(ask, self._pipeline, target.name).filling
        return filling is not None and is_outgrown(
            self._pipeline, target, filling, fingerprints(ask, self._pipeline.name)
        )


class CarryingOut:
    """An errand on its way. It is written down once; all that comes later goes on from what stands in the tables."""

    def __init__(self, pipeline: Pipeline, settings: Settings, errand: Errand, clock: Clock) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._errand = errand
        self._clock = clock
        self._is_written = False
        self._look_at = 0.0
        self._began_at = self._answered_at = clock.monotonic()
        self._had_answer = False
        self._has_said = False

    def run(self, stopped: Callable[[], bool]) -> bool:
        """Until it is done, or `stopped`; returns whether it is done.

        Raises SettingsError if the wish is not possible, and what a projector raises that cannot start.
        """
        if (server := self._settings.server()) is not None:
            return self._on_server(server, stopped)
        while not stopped():
            endpoint = read_endpoint(self._settings.data)
            if endpoint is not None and self._outside(endpoint):
                return True
            if self._may_open(endpoint) and self._inside(stopped):
                return True
            self._clock.sleep(LOOK_SECONDS)
        return False

    def _on_server(self, server: Endpoint, stopped: Callable[[], bool]) -> bool:
        """Where the projector's tables are, it is written down for it; returns whether it is done."""
        store = Store(server)
        try:
            wishing = Wishing(
                self._pipeline,
                store,
                self._settings.data.absolute(),
                log=lambda: closing(open_log(self._settings, self._clock)),
            )
            self._errand.tell(wishing)
            while not stopped():
                if self._is_done_on(store, wishing.ask):
                    return True
                self._clock.sleep(LOOK_SECONDS)
            return False
        finally:
            store.close()

    def _is_done_on(self, store: Store, ask: Ask) -> bool:
        try:
            if self._errand.look(ask):
                return True
            if other := self._errand.other_code(ask):
                return self._is_to_be_loaded(other)
            self._say_who_is_waited_for(store)
        except (StoreUnavailable, QueryRefused):  # it is written down there
            if self._clock.monotonic() - self._answered_at > GIVE_UP_SECONDS:
                raise
            return False
        self._answered_at = self._clock.monotonic()
        return False

    def _say_who_is_waited_for(self, store: Store) -> None:
        """A projector anywhere takes it within seconds, if one runs."""
        if self._has_said or self._clock.monotonic() - self._began_at < TAKEN_SECONDS:
            return
        self._has_said = True
        ((newest,),) = store.query("SELECT toString(max(taken_at)) FROM magnetar.leases")
        structlog.get_logger("magnetar.rebuild").warning(
            "not done yet: a projector does it; the last lease of one on this ClickHouse was taken at", at=newest
        )

    def _may_open(self, endpoint: Endpoint | None) -> bool:
        """Whether nobody else is going to open the engine, as far as can be told: a projector that is being started
        would find it taken."""
        is_supervised_here = is_supervised(self._settings.data)
        if endpoint is None and not is_supervised_here:
            return True
        seconds = GRACE_SECONDS if self._had_answer or is_supervised_here else COMES_BACK_SECONDS
        if self._clock.monotonic() - self._answered_at > seconds:
            return True
        if not self._has_said and self._clock.monotonic() - self._answered_at > 1.0:
            self._has_said = True
            structlog.get_logger("magnetar.rebuild").warning(
                "the projector does not answer: it is waited for", seconds_at_most=seconds
            )
        return False

    def _outside(self, endpoint: Endpoint) -> bool:
        """Through the one that runs; returns whether it is done."""
        try:
            if not self._is_written:
                other = self._errand.send(endpoint)
                if other:
                    return self._is_to_be_loaded(other)
                self._is_written = True
            done = self._errand.look(asking(endpoint))
        except httpx.TransportError:  # its process is gone, or as good as gone
            return False
        except QueryRefused:  # it is about to stop; or it is of another version, and says so for ever
            if self._clock.monotonic() - self._answered_at > GIVE_UP_SECONDS:
                raise
            return False
        self._answered_at, self._had_answer = self._clock.monotonic(), True
        return done

    def _is_to_be_loaded(self, other: Sequence[str]) -> bool:
        """Wait for the projector that runs to load the code that is here: `magnetar dev` does so behind each save."""
        if self._clock.monotonic() - self._answered_at > GIVE_UP_SECONDS:
            raise SettingsError(
                f"The projector that runs has other code of {', '.join(other)} than the module that was read here.",
                cure="Start it with the same code first. `magnetar dev` does so behind each save, unless the module "
                "cannot be used: it says so then.",
            )
        return False

    def _inside(self, stopped: Callable[[], bool]) -> bool:
        """In this process, which feeds the live tables and answers queries meanwhile; returns whether it is done."""
        projectors: list[Projector] = []
        done = False

        def first(projector: Projector) -> None:
            projectors.append(projector)
            if not self._is_written:
                self._errand.tell(projector)
                self._is_written = True

        def stopped_or_done() -> bool:
            nonlocal done
            if self._clock.monotonic() >= self._look_at:
                self._look_at = self._clock.monotonic() + LOOK_SECONDS
                done = self._errand.look(projectors[0].ask)
            return done or stopped()

        try:
            run_projector(self._pipeline, self._settings, stopped=stopped_or_done, first=first, outwait_seconds=0.0)
        except DataFolderError as error:  # another process has the engine open: it begins to answer, or has ended
            if "pid" not in error.fields:
                raise
            if self._clock.monotonic() - self._answered_at > GIVE_UP_SECONDS:
                raise self._silent(error) from error
        return done

    def _silent(self, error: MagnetarError) -> StoreUnavailable:
        return StoreUnavailable(
            f"{error.what} It does not answer.",
            cure="Is it frozen? End it, and run this again: it goes on where it was.",
            **error.fields,
        )
