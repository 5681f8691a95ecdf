"""`rebuild`: new tables from the log, beside those that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from magnetar.schemas import SettingsError

from . import slicing
from .shared import EXIT_INTERRUPTED, AsJson, Data, TableNames, Target, numbered, print_json, print_table, sized

if TYPE_CHECKING:
    from magnetar.projections.generations import Origin

    from ..pipeline import Pipeline
    from ..rebuild_status import GenerationStatus
    from ..settings import Settings
    from ..wishes import Wish


def rebuild(
    target: Target,
    names: TableNames = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="topics|mirror", help="What the tables are filled from at first.", show_default="topics"
        ),
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="The projections with other fields, events or `revision`.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Show the generations; change nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much it is; change nothing.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Show what was shown before the last swap.")] = False,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Remove the tables that are not shown.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give up the rebuild that is under way.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Into a scratch table instead: from that time on. Not of a Fold.", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Into a scratch table instead: up to the last command of that time.",
            show_default=False,
        ),
    ] = None,
    drop_scratch: Annotated[bool, typer.Option("--drop-scratch", help="Remove the scratch tables.")] = False,
    drop_gone: Annotated[
        bool, typer.Option("--drop-gone", help="Remove the tables of projections that are declared no more.")
    ] = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Fill new tables from the log beside those that are shown, and show them as soon as they have caught up.

    The pipeline may run meanwhile: then its projector does the work, and this command shows how far it is. Killed or
    interrupted at any time, it goes on when the pipeline runs, or when you run it again. The tables that were shown
    before are kept up to date, for `--rollback`, until `--drop-old` or the next rebuild.

    With `--from mirror`, projections are filled from the mirror's tables in ClickHouse up to where those are, and from
    the log from there on. The mirror is compared with the log's numbers first.

    With `--since` or `--until`, a table `…__scratch` is filled with the rows of that slice of history, for you to query
    beside what is shown. It stays as it is, until `--drop-scratch` or the next slice. A time without a zone is UTC.

    **Examples:**

    `magnetar rebuild shop.pipeline --dry-run`

    `magnetar rebuild shop.pipeline Order`

    `magnetar rebuild shop.pipeline --changed`

    `magnetar rebuild shop.pipeline Sales --from mirror`

    `magnetar rebuild shop.pipeline --rollback`

    `magnetar rebuild shop.pipeline Sales --since 2026-01-01 --until 2026-01-31T12:00`
    """
    from ..loading import load_pipeline
    from ..settings import load_settings
    from ..wishes import Wish

    wish = _wish(status=status, dry_run=dry_run, rollback=rollback, drop_old=drop_old, cancel=cancel)
    if since is not None or until is not None or drop_scratch:
        if wish is not Wish.REBUILD or changed or source or (drop_scratch and (since or until)):
            raise SettingsError(
                "--since, --until and --drop-scratch go with none of the other options.",
                cure="Give a slice, or --drop-scratch, and the names of projections.",
            )
        if drop_scratch:
            slicing.drop_scratch(target, names or (), data=data)
        else:
            slicing.slices(target, names or (), since, until, data=data, json=json)
        return
    origin = _origin(source, wish, dry_run=dry_run)
    pipeline, settings = load_pipeline(target), load_settings(data=data)
    if drop_gone:
        if names or changed or wish is not Wish.REBUILD:
            raise SettingsError("--drop-gone goes with no other option, and with no name.", cure="Give it alone.")
        _drop_gone(pipeline, settings)
        return
    named = _named(pipeline, settings, names or [], changed=changed, origin=origin)
    if not named:
        typer.echo("Every table was filled under these fields, events and revisions: no rebuild is due.")
        typer.echo("Does a projection make something else of the same events? Raise its `revision`, or name it here.")
    elif dry_run:
        _say_estimates(pipeline, settings, _look(pipeline, settings, named), origin, json=json)
    elif wish is None:
        _say_status(_look(pipeline, settings, named), json=json)
    else:
        _carry_out(pipeline, settings, named, wish, origin, json=json)


def _drop_gone(pipeline: Pipeline, settings: Settings) -> None:
    from ..dropping_gone import drop_gone
    from ..logging import configure_logging

    configure_logging("error", role="rebuild")
    removed, left = drop_gone(pipeline, settings)
    for name in removed:
        typer.echo(f"The tables of {name} are removed.")
    if left:
        raise SettingsError(
            f"{', '.join(left)} is declared by the code that runs, and its tables are kept up to date.",
            cure="Start this code first.",
        )
    if not removed:
        typer.echo("Every table is of a projection that the pipeline declares.")


def _origin(source: str | None, wish: Wish | None, *, dry_run: bool) -> Origin:
    """What tables are filled from. Raises SettingsError for what is none, or where nothing is to be filled."""
    from magnetar.projections.generations import Origin

    from ..wishes import Wish

    if source is None:
        return Origin.TOPICS
    if wish is not Wish.REBUILD and not dry_run:
        raise SettingsError(
            "--from goes with a rebuild and with --dry-run alone.", cure="Leave it away: nothing is filled here."
        )
    if source not in list(Origin):
        raise SettingsError(f"Tables are not filled from {source!r}.", cure="Say `--from topics` or `--from mirror`.")
    return Origin(source)


def _named(pipeline: Pipeline, settings: Settings, names: list[str], *, changed: bool, origin: Origin) -> list[str]:
    """What is meant. Raises SettingsError for a name that means nothing here, or that cannot be filled from there."""
    from magnetar.projections.generations import Origin

    from .. import rebuild_status
    from ..mirror_check import from_mirror, refuse_mirrored
    from ..status import asking
    from ..targets import target_of, targets_of

    for each in names:
        target_of(pipeline, each)
    if changed and names:
        raise SettingsError("--changed says itself which tables are meant.", cure="Give either names or --changed.")
    if changed:
        return rebuild_status.changed(asking(settings), pipeline)
    if origin is Origin.MIRROR:
        refuse_mirrored(pipeline, names)
        return names or from_mirror(pipeline)
    return names or list(targets_of(pipeline))


def _wish(*, status: bool, dry_run: bool, rollback: bool, drop_old: bool, cancel: bool) -> Wish | None:
    """What is wished; None if this only looks. Raises SettingsError for more than one."""
    from ..wishes import Wish

    if status + dry_run + rollback + drop_old + cancel > 1:
        raise SettingsError(
            "--status, --dry-run, --rollback, --drop-old and --cancel do not go together.",
            cure="Give one of them, or none to rebuild.",
        )
    if status or dry_run:
        return None
    return Wish.ROLLBACK if rollback else Wish.DROP_OLD if drop_old else Wish.CANCEL if cancel else Wish.REBUILD


def _carry_out(
    pipeline: Pipeline, settings: Settings, names: Sequence[str], wish: Wish, origin: Origin, *, json: bool
) -> None:
    from ..carrying_out import CarryingOut, Regenerating
    from ..clock import SystemClock
    from ..logging import configure_logging
    from ..rebuild_progress import progress
    from ..runtime import StopSignal

    configure_logging("warning", role="rebuild")
    clock, found = SystemClock(), list["GenerationStatus"]()
    with progress(clock, json=json) as bar:

        def show(statuses: Sequence[GenerationStatus]) -> None:
            found[:] = statuses
            bar.show(statuses)

        stopped = StopSignal()
        errand = Regenerating(pipeline, names, wish, show, origin=origin)
        is_done = CarryingOut(pipeline, settings, errand, clock).run(stopped)
    if not is_done:
        typer.echo("magnetar: not done yet; it goes on while the pipeline runs, or when you run this again.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if json:
        print_json([each._asdict() for each in found])
        return
    for each in sorted(found, key=lambda each: each.state != "shown"):
        if each.state == "shown":
            typer.echo(f"{each.table}: generation {each.generation} is shown, with {numbered(each.commits, 'commit')}.")
        elif each.state == "kept":
            typer.echo(
                f"{each.table}: generation {each.generation} is kept up to date: --rollback shows it again, "
                "--drop-old removes it."
            )


def _look(pipeline: Pipeline, settings: Settings, names: Sequence[str]) -> list[GenerationStatus]:
    from ..rebuild_status import statuses
    from ..status import asking

    return statuses(asking(settings), pipeline, names)


def _say_status(found: Sequence[GenerationStatus], *, json: bool) -> None:
    if json:
        print_json([each._asdict() for each in found])
        return
    columns = ("table", "generation", "state", "commits", "rows", "on disk")
    rows = [
        (each.table, each.generation, each.state, each.commits, each.rows, sized(each.disk_bytes)) for each in found
    ]
    print_table(columns, rows)


def _say_estimates(
    pipeline: Pipeline, settings: Settings, found: Sequence[GenerationStatus], origin: Origin, *, json: bool
) -> None:
    from ..rebuild_estimate import MEASURED_ON, estimates
    from ..rebuild_room import free_bytes
    from ..status import asking

    ask = asking(settings)
    known, free = estimates(ask, pipeline, found, origin), free_bytes(ask)
    if json:
        print_json(
            {
                "from": origin.value,
                "tables": [each._asdict() for each in known],
                "seconds_by": MEASURED_ON,
                "disk_free_bytes": free,
            }
        )
        return
    for each in known:
        typer.echo(
            f"{each.table} ({each.kind}): {numbered(each.events, 'event')} of {numbered(each.commits, 'commit')}, "
            f"about {each.seconds:,} s, about {sized(each.disk_bytes)} on disk."
        )
    typer.echo(f"The times are by {MEASURED_ON}.")
    typer.echo(f"{sized(free)} are free. Nothing was changed.")
