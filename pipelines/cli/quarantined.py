"""`quarantined`: the events that projections could not take, and what to do with them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from magnetar.schemas import SettingsError

from .shared import EXIT_INTERRUPTED, EXIT_PARKED, AsJson, Data, Target, print_json, print_table

if TYPE_CHECKING:
    from magnetar.projections.quarantine import QuarantinedKey, Settled

    from ..pipeline import Pipeline
    from ..settings import Settings


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    RETRY = "retry"
    DROP = "drop"


def quarantined(
    target: Target,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    projection: Annotated[str | None, typer.Argument(help="The projection.", show_default=False)] = None,
    id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The aggregate's id, or the values of a fold by fields.", show_default=False
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Retry all, or all of the projection.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is dropped; that is kept.", show_default=False)] = None,
    actor: Annotated[str, typer.Option(help="Who it is that settles it.", show_default=False)] = "",
    data: Data = None,
    json: AsJson = False,
) -> None:
    """List the events that a projection raised on, let them in (`retry`), or give one up (`drop`).

    With such an event, those behind it of the same aggregate are kept back, and all others go on. `retry` lets them in,
    in their order, as far as the code that runs takes them; `drop` gives up the first one alone, and lets in those
    behind it. The projector does it; without one, this command does. Exits with 11 if an event was raised on again.

    **Examples:**

    `magnetar quarantined shop.pipeline`

    `magnetar quarantined shop.pipeline retry --all`

    `magnetar quarantined shop.pipeline retry Board 42`

    `magnetar quarantined shop.pipeline drop Board 42 --reason "a test order"`
    """
    from ..loading import load_pipeline
    from ..settings import load_settings

    _check(action, id, reason, every=every)
    pipeline, settings = load_pipeline(target), load_settings(data=data)
    found = [each for each in _all(pipeline, settings) if projection in {None, each.projection}]
    if action is Action.LIST:
        _list(found, json=json)
        return
    keys = found if every else [each for each in found if each.id == id]
    if not keys:
        raise SettingsError(
            f"{id or 'Nothing'} is not quarantined{f' in {projection}' if projection else ''}.",
            cure="The list shows what is.",
        )
    _settle(pipeline, settings, keys, action, reason or "", actor, json=json)


def _check(action: Action, id: str | None, reason: str | None, *, every: bool) -> None:
    if every and (action is not Action.RETRY or id is not None):
        raise SettingsError("--all goes with `retry` alone.", cure="Drop one at a time.")
    if action is not Action.LIST and id is None and not every:
        raise SettingsError(f"`{action}` does not say of what.", cure="Name the projection and the aggregate's id.")
    if action is Action.DROP and not reason:
        raise SettingsError("An event is dropped for a reason.", cure="Add --reason.")


def _all(pipeline: Pipeline, settings: Settings) -> list[QuarantinedKey]:
    from ..settling import shown_quarantined
    from ..status import asking

    return shown_quarantined(asking(settings), pipeline)


def _list(found: list[QuarantinedKey], *, json: bool) -> None:
    if json:
        print_json([each._asdict() for each in found])
    elif not found:
        typer.echo("Nothing is quarantined.")
    else:
        print_table(
            ("projection", "of", "id", "version", "event", "events", "for", "error"),
            [
                (e.projection, e.aggregate, e.id, e.version, e.event, e.events, f"{e.age_seconds:,.0f} s", e.error)
                for e in found
            ],
        )


def _settle(
    pipeline: Pipeline,
    settings: Settings,
    keys: list[QuarantinedKey],
    action: Action,
    reason: str,
    actor: str,
    *,
    json: bool,
) -> None:
    from ..carrying_out import CarryingOut
    from ..clock import SystemClock
    from ..logging import configure_logging
    from ..runtime import StopSignal
    from ..settling import SettlingKeys, refuse_outgrown
    from ..status import asking

    configure_logging("warning", role="quarantined")
    refuse_outgrown(asking(settings), pipeline, keys)
    errand = SettlingKeys(pipeline, keys, is_drop=action is Action.DROP, reason=reason, actor=actor)
    if not CarryingOut(pipeline, settings, errand, SystemClock()).run(StopSignal()):
        typer.echo("magnetar: not done yet; the projector does it when it can.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if json:
        print_json([{**key._asdict(), **said._asdict()} for key, said in errand.found.values()])
    else:
        for key, said in errand.found.values():
            typer.echo(_said(key, said))
    if any(said.error for _, said in errand.found.values()):
        raise typer.Exit(EXIT_PARKED)


def _said(key: QuarantinedKey, said: Settled) -> str:
    parts = [f"version {said.dropped} dropped"] if said.dropped else []
    parts += [f"released up to version {said.released}"] if said.released else []
    parts += [f"raised again: {said.error}"] if said.error else []
    return f"{key.projection} {key.id}: {'; '.join(parts)}"
