"""`diff`: what a change of the code does to history."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from magnetar.schemas import SettingsError

from ..comparing import NOTHING_TO_SWAP
from . import completing
from .shared import AsJson, Data, TableNames, Target, numbered, opened, print_json, print_table, print_wide

if TYPE_CHECKING:
    from ..diffing import Difference, TableDifference, Wanted
    from ..log import Log
    from ..pipeline import Pipeline
    from ..replaying import Replayed
    from ..settings import Settings

EXIT_DIFFERENT: Final = 1


def diff(
    target: Target,
    names: TableNames = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Of the projections, those whose declaration has changed.")
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, help="So many commits of each aggregate only, the first of some partitions.", show_default=False
        ),
    ] = None,
    commands: Annotated[bool, typer.Option("--commands", help="Only commands: asks no ClickHouse.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="Only the rows of tables.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="So many examples of each kind.")] = 3,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", help="Write the history to this file for tests, and compare nothing.", show_default=False
        ),
    ] = None,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Replay what is recorded under the code as it is now, and say what comes out otherwise. Changes nothing.

    Which commands would be decided differently, which events do not fold any more, and which rows of which tables would
    be others. A command is decided on the events that were recorded before it. Exit code 0: all the same; 1: something
    differs. Works whether the pipeline runs or not.

    **Examples:**

    `magnetar diff shop.pipeline`

    `magnetar diff shop.pipeline Order BestSellers --limit 10`

    `magnetar diff shop.pipeline --sample 10000 --json`

    `magnetar diff shop.pipeline --record tests/history.jsonl --sample 500`
    """
    import msgspec

    from ..clock import SystemClock
    from ..diffing import Wanted
    from ..diffing import diff as compared

    if limit > 1000:
        raise SettingsError(f"{limit} examples are too many to look at.", cure="Take 1000 at most.")
    both = commands == tables
    wanted = Wanted(
        names=names or (),
        only_changed=changed,
        commands=commands or both,
        tables=tables or both,
        sample=sample,
        examples=limit,
    )
    pipeline, settings, log = opened(target, data)
    try:
        if record is not None:
            _record(pipeline, log, wanted, record)
            return
        found = compared(pipeline, log, settings.data, SystemClock(), wanted, settings.server())
    finally:
        log.close()
    if json:
        print_json({**msgspec.to_builtins(found), "same": found.is_same})
    else:
        say(found, "magnetar rebuild " + " ".join([target, *_data(settings)]))
    if not found.is_same:
        raise typer.Exit(EXIT_DIFFERENT)


def fork(
    target: Target,
    name: Annotated[str, typer.Argument(help="The projection.", autocompletion=completing.tables)],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Up to the last command of that time: `2026-01-31T12:00`.", show_default=False
        ),
    ] = None,
    other: Annotated[
        str | None,
        typer.Option("--with", metavar="MODULE:CLASS", help="Another projection, in its place.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="So many examples of each kind.")] = 3,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Fill a projection's table from the log as of a time, or by other code, and say what differs. Changes nothing.

    With another projection, both are filled, up to the same time. Without one, the rows as of then are compared with
    those as of now. The tables are in a temporary folder, and gone at the end. A time without a zone is UTC. Exit code
    0: all the same; 1: something differs.

    **Examples:**

    `magnetar fork shop.pipeline Board --until 2026-01-31T12:00`

    `magnetar fork shop.pipeline Board --with shop.ideas:Board`
    """
    import msgspec

    from ..clock import SystemClock
    from ..forking import Fork, forked, load_projection
    from .looking import moment

    if until is None and other is None:
        raise SettingsError("A fork is of another time or of other code.", cure="Add --until, or --with, or both.")
    at = None if until is None else moment(until, datetime.now(UTC))
    pipeline, _, log = opened(target, data)
    try:
        wanted = Fork(name, at, None if other is None else load_projection(other))
        found = forked(pipeline, log, SystemClock(), wanted, examples=limit)
    finally:
        log.close()
    if json:
        print_json({**msgspec.to_builtins(found), "same": found.is_same})
    else:
        _say_table(found, (until or name, "now" if other is None else other))
    if not found.is_same:
        raise typer.Exit(EXIT_DIFFERENT)


def _record(pipeline: Pipeline, log: Log, wanted: Wanted, file: Path) -> None:
    from ..diffing import aggregates_of
    from ..recordings import record

    count = record(pipeline, log, file, aggregates=aggregates_of(pipeline, wanted), sample=wanted.sample)
    typer.echo(f"{file}: {numbered(count, 'commit')}, with the fields of their commands and events.")


def _data(settings: Settings) -> list[str]:
    """How a command for the same data folder names it: not at all, where it is the one that is taken anyway."""
    from ..settings import load_settings

    return [] if settings.data == load_settings().data else ["--data", shlex.quote(str(settings.data))]


def say(found: Difference, rebuild: str) -> None:
    """Print it for people. `rebuild` is the command that fills tables by this code."""
    if found.sample is not None:
        typer.echo(f"A sample: of each aggregate, {numbered(found.sample, 'commit')}.\n")
    for aggregate in found.aggregates:
        _say_aggregate(aggregate)
    for table in found.tables:
        _say_table(table, is_sample=found.sample is not None)
    if found.is_same:
        typer.echo("Nothing differs.")
        return
    if any(each.otherwise for each in found.aggregates):
        typer.echo("What was decided stays in the log as it is. This code decides what comes from now on.")
    if (swap := _swap(found.tables, rebuild)) is not None:
        typer.echo(f"{swap}\nfills new tables beside those that are shown, and shows them; --rollback goes back.")
    elif found.tables and all(each.is_same for each in found.tables):
        typer.echo(NOTHING_TO_SWAP)


def _say_aggregate(found: Replayed) -> None:
    left_out = "".join(f"; {count:,} not asked: {why}" for why, count in found.not_asked.items())
    typer.echo(
        f"{found.aggregate}: {numbered(found.asked, 'command')} decided once more, "
        f"of {numbered(found.commits, 'commit')}{left_out}"
    )
    if found.otherwise:
        counts = [(each.recorded, each.now, each.commands) for each in found.otherwise]
        print_table(("recorded", "now", "commands"), counts)
        typer.echo()
        print_wide(("id", "version", "command", "recorded", "now"), list(_decided(found)))
    if found.unsteady:
        typer.echo(
            f"{found.aggregate} is not deterministic: asked twice, {numbered(found.unsteady, 'command')} came to "
            "another thing each time. Does `execute` look at a clock, or anything else that is not in the state, the "
            "command and its Meta?"
        )
    if found.not_folding:
        rows = [(each.event or "?", each.error, each.aggregates, _where(each.examples)) for each in found.not_folding]
        print_table(("event that does not fold", "error", "aggregates", "for example"), rows)
    typer.echo()


def _decided(found: Replayed) -> Iterator[tuple[object, ...]]:
    for kind in found.otherwise:
        for each in kind.examples:
            yield each.aggregate_id, each.version, each.command, each.recorded, each.now


def _where(examples: Sequence[Any]) -> str:
    return ", ".join(f"{each.aggregate_id} at {each.version}" for each in examples)


def _say_table(
    found: TableDifference, sides: tuple[str, str] = ("shown now", "by this code"), *, is_sample: bool = False
) -> None:
    if found.left_out and found.is_same:
        typer.echo(f"{found.projection}: not compared: {found.left_out}.\n")
        return
    if found.is_new:
        typer.echo(f"{found.projection}: has no table yet; it would have {numbered(found.after, 'row')}.\n")
        return
    columns = [f"column {name} is new" for name in found.columns_added]
    columns += [f"column {name} is gone" for name in found.columns_removed]
    why = "going on behind the sample" if is_sample else "being written to meanwhile"
    late = [f"{found.not_compared:,} not compared, {why}"] if found.not_compared else []
    inexact = [] if found.is_exact else ["it is written to meanwhile: the newest events may make the difference"]
    counts = f"{found.added:,} added, {found.removed:,} removed, {found.changed:,} changed"
    if found.left_out:
        counts = f"not compared, {found.left_out}"
    typer.echo(
        "; ".join([f"{found.projection}: {found.before:,} → {found.after:,}: {counts}", *columns, *late, *inexact])
    )
    if found.refused:
        rows = [(each.event, each.error, each.aggregates, ", ".join(each.examples)) for each in found.refused]
        print_table(("event that it raises on", "error", "aggregates", "for example"), rows)
    if found.examples:
        print_table(("", *sides), [_side_by_side(each) for each in found.examples])
    if found.unsteady:
        typer.echo(
            f"{found.projection} is not deterministic: filled twice by the same code, from the same events, "
            f"{numbered(found.unsteady, 'row')} came out otherwise. Does it look at a clock, or anything else that is "
            "not in the event and its Meta?"
        )
    elif not found.is_same and not found.has_changed and not found.is_fork:
        typer.echo(
            f"Its declaration is the same: if its code has changed, raise `revision` of {found.projection}, so that "
            "this is noticed; if events are kept back from it, `magnetar quarantined` names them."
        )
    typer.echo()


def _side_by_side(example: dict[str, Any]) -> tuple[str, str, str]:
    before, after = example["before"], example["after"]
    if len(before) == len(after) == 1:
        names = [name for name in {**before[0], **after[0]} if before[0].get(name) != after[0].get(name)]
        before, after = ([{name: row[0][name] for name in names if name in row[0]}] for row in (before, after))
    identity = " ".join(value for name, value in example["identity"].items() if name != "_aggregate")
    return identity, _rows(before), _rows(after)


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join(", ".join(f"{name} {value!r}" for name, value in row.items()) for row in rows) or "—"


def _swap(tables: Sequence[TableDifference], rebuild: str) -> str | None:
    """The command that shows what this code makes."""
    differing = [table for table in tables if not table.is_same and not table.is_new and not table.refused]
    if not differing:
        return None
    is_known = all(table.has_changed for table in differing)
    return f"{rebuild} " + ("--changed" if is_known else " ".join(t.projection for t in differing))
