"""Wishes from a second terminal: what the process that has the engine open takes, and how another one asks it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import httpx
import magnetar.schemas as leaves
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.freshness import MIRROR
from magnetar.projections.query import Endpoint
from magnetar.schemas import MagnetarError, SettingsError

from .pipeline import Pipeline
from .targets import projection_of, target_of
from .wishes import Wish

WISH_SECONDS_MAX: Final = 120.0
"""So long a wish may take to be written down."""


class TakesWishes(Protocol):
    """What carries a wish out: the projector."""

    def wish(self, wish: Wish, names: Iterable[str]) -> None:
        """Write the wish down."""
        ...


def take_wish(projector: TakesWishes, pipeline: Pipeline, body: bytes) -> bytes:
    """Answer a request as `send_wish` makes it. When this returns, the wish is durable, or nothing was done because the
    code of whoever sent it is not the code of some of the projections here: the answer names them.

    Raises SettingsError for a wish that means nothing, of another pipeline, or impossible as things stand.
    """
    try:
        asked = json.loads(body)
        wish, context, names = Wish(asked["wish"]), str(asked["pipeline"]), [str(a) for a in asked["names"]]
        theirs = dict(asked["fingerprints"])
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            "That is no wish.", cure="Use `magnetar rebuild` of the version that runs the pipeline."
        ) from error
    if context != pipeline.name:
        raise SettingsError(
            f"The pipeline that runs on this data folder is {pipeline.name!r}, not {context!r}.",
            cure="Name its module, or the other one's folder with --data.",
        )
    for name in names:
        target_of(pipeline, name)
    other = [name for name, ours in _fingerprints(pipeline, names).items() if theirs.get(name) != ours]
    if not other:
        projector.wish(wish, names)
    return json.dumps({"other_code": other}).encode()


def _fingerprints(pipeline: Pipeline, names: Iterable[str]) -> dict[str, str]:
    """What the code of the projections among these is: a mirror has none of its own."""
    return {
        name: fingerprint_of(projection_of(pipeline, name))
        for name in names
        if target_of(pipeline, name).projection != MIRROR
    }


def send_wish(endpoint: Endpoint, pipeline: Pipeline, wish: Wish, names: Sequence[str]) -> list[str]:
    """Ask a running projector. Returns the projections of which it runs other code; if there are any, it does nothing.

    Raises what it raises, and httpx.TransportError if nothing answers there.
    """
    response = httpx.post(
        f"{endpoint.url}control/generations",
        json={
            "wish": wish.value,
            "pipeline": pipeline.name,
            "names": list(names),
            "fingerprints": _fingerprints(pipeline, names),
        },
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
