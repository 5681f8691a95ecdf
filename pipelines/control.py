"""Wishes from a second terminal: what the process that has the engine open takes, and how another one asks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, Protocol

import httpx
import magnetar.schemas as leaves
import msgspec
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.generations import Origin
from magnetar.projections.scratch_rows import ScratchRows
from magnetar.schemas import MagnetarError, SettingsError

from .pipeline import Pipeline
from .targets import projection_of, target_of
from .wishes import Wish

WISH_SECONDS_MAX: Final = 120.0
"""So long a wish may take to be written down."""


class KeyWish(msgspec.Struct, frozen=True):
    """One key of a projection, and the name of what is wished of it."""

    projection: str
    aggregate: str
    partition: int
    id: str
    nonce: str


class Settling(msgspec.Struct, frozen=True):
    """What is wished of quarantined keys."""

    step: Literal["retry", "drop"]
    keys: tuple[KeyWish, ...]
    reason: str = ""
    actor: str = ""


class TakesWishes(Protocol):
    """What carries a wish out: the projector."""

    def keep_scratch(self, rows: ScratchRows) -> None:
        """Make a scratch table, or remove it."""
        ...

    def settle(self, settling: Settling) -> None:
        """Write down what is to be done with quarantined keys."""
        ...

    def wish(self, wish: Wish, names: Iterable[str], origin: Origin = Origin.TOPICS) -> None:
        """Write the wish down."""
        ...


def take_wish(projector: TakesWishes, pipeline: Pipeline, body: bytes) -> bytes:
    """Answer a request as `send_wish` makes it. When this returns, the wish is durable, or nothing was done because the
    code of whoever sent it is not the code of some of the projections here: the answer names them.

    Raises SettingsError for a wish that means nothing, of another pipeline, or impossible as things stand.
    """
    try:
        asked = json.loads(body)
        context, theirs = str(asked["pipeline"]), dict(asked["fingerprints"])
        names, carry_out = _asked_of(projector, asked)
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError("That is no wish.", cure="Use `magnetar` of the version that runs the pipeline.") from error
    _check_context(context, pipeline)
    for name in names:
        target_of(pipeline, name)
    other = [name for name, ours in _fingerprints(pipeline, names).items() if theirs.get(name) != ours]
    if not other:
        carry_out()
    return json.dumps({"other_code": other}).encode()


def take_wish_of(running: Sequence[tuple[TakesWishes, Pipeline]], body: bytes) -> bytes:
    """The same where several pipelines run on one data folder, of which the last is the one that was named there."""
    try:
        context = json.loads(body).get("pipeline")
    except (ValueError, AttributeError):
        context = None
    projector, pipeline = next((each for each in running if each[1].name == context), running[-1])
    return take_wish(projector, pipeline, body)


def _asked_of(projector: TakesWishes, asked: dict[str, Any]) -> tuple[list[str], Callable[[], None]]:
    """What the wish is about, and how it is written down. Raises ValueError, KeyError or TypeError for what is none."""
    if "settling" in asked:
        settling = msgspec.convert(asked["settling"], Settling)
        return sorted({key.projection for key in settling.keys}), partial(projector.settle, settling)
    if "scratch" in asked:
        return [], partial(projector.keep_scratch, msgspec.convert(asked["scratch"], ScratchRows))
    wish, names = Wish(asked["wish"]), [str(a) for a in asked["names"]]
    return names, partial(projector.wish, wish, names, Origin(asked.get("origin", Origin.TOPICS)))


def _fingerprints(pipeline: Pipeline, names: Iterable[str]) -> dict[str, str]:
    """What the code of the projections among these is: a mirror has none of its own."""
    return {
        name: fingerprint_of(projection_of(pipeline, name))
        for name in names
        if target_of(pipeline, name).projection != MIRROR
    }


def _check_context(context: str, pipeline: Pipeline) -> None:
    if context != pipeline.name:
        raise SettingsError(
            f"The pipeline that runs on this data folder is {pipeline.name!r}, not {context!r}.",
            cure="Name its module, or the other one's folder with --data.",
        )


def send_wish(
    endpoint: Endpoint, pipeline: Pipeline, wish: Wish, names: Sequence[str], origin: Origin = Origin.TOPICS
) -> list[str]:
    """Ask a running projector. Returns the projections of which it runs other code; if there are any, it does nothing.

    Raises what it raises, and httpx.TransportError if nothing answers there.
    """
    asked = {"wish": wish.value, "names": list(names), "fingerprints": _fingerprints(pipeline, names)}
    return _send(endpoint, {**asked, "origin": origin.value, "pipeline": pipeline.name})


def send_settling(endpoint: Endpoint, pipeline: Pipeline, settling: Settling) -> list[str]:
    """The same for what is quarantined."""
    names = sorted({key.projection for key in settling.keys})
    asked = {"settling": msgspec.to_builtins(settling), "fingerprints": _fingerprints(pipeline, names)}
    return _send(endpoint, {**asked, "pipeline": pipeline.name})


def send_scratch(endpoint: Endpoint, pipeline: Pipeline, rows: ScratchRows) -> list[str]:
    """The same for a scratch table, whatever code the projector runs: it has no part in the rows."""
    return _send(endpoint, {"scratch": msgspec.to_builtins(rows), "fingerprints": {}, "pipeline": pipeline.name})


def _send(endpoint: Endpoint, asked: Mapping[str, object]) -> list[str]:
    response = httpx.post(
        f"{endpoint.url}control/generations",
        json=asked,
        headers={"X-ClickHouse-Key": endpoint.token},
        timeout=WISH_SECONDS_MAX,
    )
    if response.status_code == httpx.codes.CONFLICT.value:
        said = response.json()
        leaf = getattr(leaves, str(said["error"]), MagnetarError)
        raise leaf(str(said["what"]), cure=str(said["cure"]))
    if not response.is_success:
        raise MagnetarError(
            f"The projector that runs did not take the wish: {response.text.strip()}",
            cure="Nothing was changed. Is it of another version than this command? Otherwise please report it.",
        )
    return [str(name) for name in response.json()["other_code"]]
