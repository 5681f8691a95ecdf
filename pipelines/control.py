"""Wishes from a second terminal: what the process that has the engine open takes, and how another one asks it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import httpx
import magnetar.schemas as leaves
from magnetar.projections.query import Endpoint
from magnetar.schemas import MagnetarError, SettingsError

from .pipeline import Pipeline
from .targets import target_of
from .wishes import Wish

WISH_SECONDS_MAX: Final = 120.0
"""So long a wish may take to be written down."""


class TakesWishes(Protocol):
    """What carries a wish out: the projector."""

    def wish(self, wish: Wish, names: Iterable[str]) -> None:
        """Write the wish down."""
        ...


def take_wish(projector: TakesWishes, pipeline: Pipeline, body: bytes) -> bytes:
    """Answer a request as `send_wish` makes it. When this returns, the wish is durable.

    Raises SettingsError for a wish that means nothing, of another pipeline, or impossible as things stand.
    """
    try:
        asked = json.loads(body)
        wish, context, names = Wish(asked["wish"]), str(asked["pipeline"]), [str(a) for a in asked["names"]]
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
    projector.wish(wish, names)
    return b"{}"


def send_wish(endpoint: Endpoint, pipeline: str, wish: Wish, names: Sequence[str]) -> None:
    """Ask a running projector. Raises what it raises, and httpx.TransportError if nothing answers there."""
    response = httpx.post(
        f"{endpoint.url}control/generations",
        json={"wish": wish.value, "pipeline": pipeline, "names": list(names)},
        headers={"X-ClickHouse-Key": endpoint.token},
        timeout=WISH_SECONDS_MAX,
    )
    if response.status_code == httpx.codes.CONFLICT.value:
        said = response.json()
        leaf = getattr(leaves, str(said["error"]), MagnetarError)
        raise leaf(str(said["what"]), cure=str(said["cure"]))
    if not response.is_success:
        raise MagnetarError(f"The running projector did not take the wish: {response.text.strip()}")
