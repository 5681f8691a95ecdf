"""`parked`: the commands that could not be decided, and what to do with them."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from magnetar.schemas import MessageRefused, SettingsError, Undecodable

from .shared import EXIT_PARKED, EXIT_REJECTED, AsJson, Data, Target, opened, print_json, print_table

if TYPE_CHECKING:
    from magnetar.schemas.commit import Commit

    from ..parked import ParkedCommand, ParkedCommands


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"
    RETRY = "retry"
    DROP = "drop"


def parked(
    target: Target,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.LIST,
    which: Annotated[
        str | None, typer.Argument(metavar="[WHICH]", help="Its command id or its position, as `list` shows them.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is dropped; it stands in the log for good.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who drops it.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for what becomes of it.")] = 30.0,
    data: Data = None,
    json: AsJson = False,
) -> None:
    """List the commands that could not be decided, show one, send it again (`retry`), or give it up (`drop`).

    `retry` and `drop` are commands of their own, whose commit settles the parked one; a worker has to run. A retry
    exits with 10 if it was rejected, and with 11 if it was parked again.

    **Examples:**

    `magnetar parked shop.pipeline`

    `magnetar parked shop.pipeline show shop/Order/6/17`

    `magnetar parked shop.pipeline retry shop/Order/6/17`

    `magnetar parked shop.pipeline drop shop/Order/6/17 --reason "sent twice"`
    """
    from ..clock import SystemClock
    from ..parked import ParkedCommands

    if action is not Action.LIST and which is None:
        raise SettingsError(f"`{action}` does not say of which command.", cure="Add its id or its position.")
    if action is Action.DROP and not reason:
        raise SettingsError("A command is dropped for a reason.", cure="Add --reason.")
    pipeline, _, log = opened(target, data)
    try:
        commands = ParkedCommands(pipeline, log, SystemClock())
        if which is None:
            _list(commands.open_ones(), json=json)
            return
        one = commands.named(which)
        if action is Action.RETRY:
            _say_settled(one, commands.retry(one, timeout_seconds=timeout), json=json)
        elif action is Action.DROP:
            _say_settled(one, commands.drop(one, reason or "", actor=actor, timeout_seconds=timeout), json=json)
        else:
            _show(one, commands, json=json)
    finally:
        log.close()


def _list(found: list[ParkedCommand], *, json: bool) -> None:
    if json:
        print_json([_fields(each) for each in found])
    elif not found:
        typer.echo("No command is parked.")
    else:
        columns = ("position", "aggregate id", "at", "reason", "detail")
        print_table(columns, [tuple(_fields(each)[c.replace(" ", "_")] for c in columns) for each in found])


def _show(one: ParkedCommand, commands: ParkedCommands, *, json: bool) -> None:
    from ..lookback import fields_of

    command: dict[str, Any] | None = None
    with suppress(Undecodable, MessageRefused):
        command = fields_of(commands.command_of(one)[1])
    fields = {**_fields(one), "command": command}
    if json:
        print_json(fields)
        return
    import msgspec

    shown = "(it cannot be read)" if command is None else msgspec.json.encode(command).decode()
    for name, value in {**fields, "command": shown}.items():
        typer.echo(f"{name.replace('_', ' '):14}  {'' if value is None else value}")


def _say_settled(one: ParkedCommand, commit: Commit, *, json: bool) -> None:
    from ..lookback import what_became

    what = what_became(commit)
    if json:
        print_json({"settled": one.id, "command_id": commit.command_id, "outcome": commit.outcome, "what": what})
    else:
        typer.echo(f"{commit.outcome}: {what or 'nothing to do'}  (settles {one.position})")
    if commit.outcome in ("rejected", "parked"):
        raise typer.Exit(EXIT_REJECTED if commit.outcome == "rejected" else EXIT_PARKED)


def _fields(each: ParkedCommand) -> dict[str, Any]:
    from ..lookback import at_of

    commit = each.commit
    return {
        "position": str(each.position),
        "id": each.id,
        "aggregate": each.aggregate,
        "aggregate_id": commit.aggregate_id,
        "at": at_of(commit).isoformat(timespec="seconds"),
        "actor": commit.actor,
        "reason": each.parked.reason,
        "detail": each.parked.detail,
        "resolves": commit.resolves,
    }
