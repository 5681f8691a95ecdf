"""`topology`, `status` and `history`: looking at a pipeline, whether it runs or not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer
from magnetar.schemas import MagnetarError, SettingsError

from .shared import AggregateId, AggregateName, AsJson, Data, Target, numbered, opened, print_json, print_table

if TYPE_CHECKING:
    from magnetar.projections.quarantine import QuarantinedKey

    from ..lookback import Step


_STATUS_COLUMNS: Final = (
    "aggregate", "partitions", "commits", "undecided", "for", "not in tables", "for", "checkpoints", "worker", "for",
)  # fmt: skip


def topology(
    target: Target,
    fmt: Annotated[str, typer.Option("--format", help="text, mermaid or json.")] = "text",
    json: AsJson = False,
) -> None:
    """Show the wiring: topics with their commands, events and rejections, tables, views and projections.

    The projections are tried on an empty ClickHouse first; one that does not fit is refused.

    **Example:** `magnetar topology shop.pipeline --format mermaid`
    """
    from ..loading import load_pipeline
    from ..topology import as_fields, as_mermaid, as_text, wiring_of
    from ..trial import try_tables

    if fmt not in ("text", "mermaid", "json"):
        raise SettingsError(f"There is no format {fmt!r}.", cure="Use one of text, mermaid, json.")
    pipeline = load_pipeline(target)
    try_tables(pipeline)
    wiring = wiring_of(pipeline)
    if json or fmt == "json":
        print_json(as_fields(wiring))
    else:
        typer.echo(as_text(wiring) if fmt == "text" else as_mermaid(wiring))


def status(
    target: Target,
    partitions: Annotated[bool, typer.Option("--partitions", help="A row for each partition.")] = False,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Show how a pipeline is doing: commits, commands that wait, who decides, how far each projection is behind.

    Works from a second terminal while the pipeline runs, and when it does not.

    **Example:** `magnetar status shop.pipeline --partitions`
    """
    import msgspec
    from magnetar.projections.leased_table import of_another_log

    from ..clock import SystemClock
    from ..rebuild_status import changed
    from ..settling import shown_quarantined
    from ..standing import projections_of
    from ..status import StatusReader, asking, together

    pipeline, settings, log = opened(target, data)
    ask = asking(settings)
    try:
        reader = StatusReader(pipeline, log, SystemClock(), ask)
        foreign = reader.of_another_log()
        found = reader.read(foreign)
        projections = [
            each
            for each in projections_of(ask, pipeline.name, found, reader.read_from_others())
            if each.aggregate not in foreign
        ]
        held, due = list["QuarantinedKey"](), list[str]()
        with suppress(MagnetarError):  # nobody answers: what the log says is shown all the same
            held = shown_quarantined(ask, pipeline)
            due = changed(ask, pipeline)
    finally:
        log.close()
    if json:
        print_json(
            {
                "pipeline": pipeline.name,
                "aggregates": msgspec.to_builtins(together(found)),
                "partitions": msgspec.to_builtins(found),
                "projections": msgspec.to_builtins(projections),
                "quarantined": [each._asdict() for each in held],
                "rebuild_due": due,
                "tables_of_another_log": sorted(foreign),
            }
        )
        return
    rows = [row for each in found for row in together([each])] if partitions else together(found)
    print_table(
        _STATUS_COLUMNS,
        [
            (
                row.aggregate,
                row.partitions,
                row.commits,
                _or_unknown(row.undecided),
                _age(row.oldest_undecided_seconds),
                _or_unknown(row.unmirrored),
                _age(row.oldest_unmirrored_seconds),
                row.checkpoints,
                ", ".join(row.owners) or "nobody",
                _age(row.owned_seconds),
            )
            for row in rows
        ],
    )
    for aggregate in sorted(foreign):
        error = of_another_log(f"{pipeline.name}/{aggregate}")
        typer.echo(f"\n{error.what} They are not fed. {error.cure}")
    if held:
        typer.echo()
        _say_quarantined(held, target)
    if projections:
        typer.echo()
        print_table(
            ("projection", "of", "generation", "commits", "behind", "for"),
            [
                (row.projection, row.aggregate, row.generation, row.commits, row.behind, _age(row.age_seconds))
                for row in projections
            ],
        )
    if due:
        are_shown = "is shown" if len(due) == 1 else "are shown"
        typer.echo(f"\n{', '.join(due)} {are_shown} as older code has it: magnetar rebuild {target} --changed")


def _say_quarantined(held: Sequence[QuarantinedKey], target: str) -> None:
    for name in dict.fromkeys(each.projection for each in held):
        keys = [each for each in held if each.projection == name]
        events, oldest = sum(each.events for each in keys), max(keys, key=lambda each: each.age_seconds)
        typer.echo(
            f"{name}: {numbered(events, 'event')} of {numbered(len(keys), 'aggregate')} in quarantine, "
            f"for {_age(oldest.age_seconds)}: {oldest.error} (magnetar quarantined {target})"
        )


def _or_unknown(count: int | None) -> int | str:
    return "?" if count is None else count


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f} s"


def history(
    target: Target,
    aggregate: AggregateName,
    id: AggregateId,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to the last command of that time: `2026-01-31T12:00`.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Up to that version of the aggregate.")] = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Show what happened to one aggregate, from the log: every command, its outcome, and the state it led to.

    A time without a zone is UTC. Works whether the pipeline runs or not.

    **Example:** `magnetar history shop.pipeline Order 42 --version 3`
    """
    from .. import lookback

    until = None if at is None else moment(at, datetime.now(UTC))
    pipeline, _, log = opened(target, data)
    try:
        found = lookback.up_to(list(lookback.steps(pipeline, log, aggregate, id)), version=version, at=until)
        commands = lookback.commands_of(pipeline, log, aggregate, found)
    finally:
        log.close()
    state = found[-1].state if found else pipeline.aggregates[aggregate]()
    reached = found[-1].version if found else 0
    if json:
        import msgspec

        commits = [{**lookback.step_fields(step), "command": commands.get(step.commit.number)} for step in found]
        state_fields = msgspec.to_builtins(state)
        print_json({"aggregate": aggregate, "id": id, "version": reached, "state": state_fields, "commits": commits})
        return
    if not found:
        since = "" if until is None else " until then"
        typer.echo(f"{aggregate} {id} was never sent a command{since}. It begins as {state!r}")
        return
    print_table(
        ("number", "at", "command", "outcome", "version", "what became of it"),
        [_history_row(step, commands.get(step.commit.number, {"type": ""})["type"]) for step in found],
    )
    typer.echo(f"{aggregate} {id} at version {reached}: {state!r}")


def _history_row(step: Step, command: str) -> tuple[object, ...]:
    from .. import lookback

    at = lookback.at_of(step.commit).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    what = lookback.what_became(step.commit)
    return step.commit.number, at, command, step.commit.outcome, step.version, what


def moment(text: str, now: datetime) -> datetime:
    """The time that somebody wrote. Raises SettingsError for what is none, or is in the future."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{text!r} is not a time.", cure="Write it as 2026-01-31T12:00 or with a zone.") from error
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found > now:
        raise SettingsError(
            f"{found.isoformat()} is in the future; it is {now.isoformat(timespec='seconds')} now.",
            cure="Leave it out to see the newest state.",
        )
    return found
