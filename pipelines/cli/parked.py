"""`parked`: the commands that could not be decided, and what to do with them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from magnetar.schemas import MessageRefused, SettingsError, Undecodable

from .shared import EXIT_PARKED, EXIT_REJECTED, AsJson, Data, Target, opened, print_json, print_table

if TYPE_CHECKING:
    from magnetar.schemas.commit import Commit

    from ..parked import ParkedCommand, ParkedCommands, Settling


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
    every: Annotated[bool, typer.Option("--all", help="Retry all that can be sent again.")] = False,
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

    `magnetar parked shop.pipeline retry --all`

    `magnetar parked shop.pipeline drop shop/Order/6/17 --reason "sent twice"`
    """
    from ..clock import SystemClock
    from ..parked import ParkedCommands

    _check(action, which, reason, every=every)
    pipeline, _, log = opened(target, data)
    try:
        commands = ParkedCommands(pipeline, log, SystemClock())
        if action is Action.LIST:
            _list(commands.open_ones(), json=json)
        elif action is Action.SHOW:
            _show(commands.named(which or ""), commands, json=json)
        elif action is Action.DROP:
            one = commands.drop(commands.named(which or ""), reason or "", actor=actor)
            _say_settled(commands.settle([one], timeout_seconds=timeout), json=json)
        else:
            some = _all_again(commands) if every else [commands.again(commands.named(which or ""))]
            _say_settled(commands.settle(some, timeout_seconds=timeout), json=json)
    finally:
        log.close()


def _check(action: Action, which: str | None, reason: str | None, *, every: bool) -> None:
    if every and (action is not Action.RETRY or which is not None):
        raise SettingsError("--all goes with `retry` alone.", cure="Settle the others one by one.")
    if action is not Action.LIST and which is None and not every:
        raise SettingsError(f"`{action}` does not say of which command.", cure="Add its id or its position.")
    if action is Action.DROP and not reason:
        raise SettingsError("A command is dropped for a reason.", cure="Add --reason.")


def _all_again(commands: ParkedCommands) -> list[Settling]:
    """All that can be sent again; of the others it is said why not."""
    some: list[Settling] = []
    for one in commands.open_ones():
        try:
            some.append(commands.again(one))
        except MessageRefused as error:
            typer.echo(f"magnetar: {error}", err=True)
    return some


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
        if value is not None:
            typer.echo(f"{name.replace('_', ' '):14}  {value}")


def _say_settled(settled: Iterable[tuple[ParkedCommand, Commit]], *, json: bool) -> None:
    """A line for each, as it comes. The exit code is the worst that became of one."""
    from ..lookback import what_became

    outcomes = set[str]()
    for one, commit in settled:
        what = what_became(commit)
        outcomes.add(commit.outcome)
        if json:
            print_json({"settled": one.id, "command_id": commit.command_id, "outcome": commit.outcome, "what": what})
        else:
            typer.echo(f"{commit.outcome}: {what or 'nothing to do'}  (settles {one.position})")
    if "parked" in outcomes:
        raise typer.Exit(EXIT_PARKED)
    if "rejected" in outcomes:
        raise typer.Exit(EXIT_REJECTED)


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
