"""Wishes from a second terminal, as the running projector takes them."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from magnetar.pipelines.control import take_wish
from magnetar.pipelines.wishes import Wish
from magnetar.schemas import SettingsError

from tests.unit.pipelines.counting_rig import tallies


class Recording:
    """Keeps what is wished."""

    def __init__(self) -> None:
        self.wished: list[tuple[Wish, list[str]]] = []

    def wish(self, wish: Wish, aggregates: Iterable[str]) -> None:
        self.wished.append((wish, list(aggregates)))


def asked(**changes: Any) -> bytes:
    return json.dumps({"wish": "rebuild", "pipeline": "tallies", "names": ["Tally"], **changes}).encode()


def test_a_wish_reaches_the_projector() -> None:
    projector = Recording()
    assert json.loads(take_wish(projector, tallies, asked())) == {}
    assert projector.wished == [(Wish.REBUILD, ["Tally"])]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "That is no wish"),
        (b"[]", "That is no wish"),
        (asked(wish="destroy"), "That is no wish"),
        (asked(names=7), "That is no wish"),
        (asked(pipeline="shop"), "runs on this data folder is 'tallies', not 'shop'"),
        (asked(names=["Order"]), "Order"),
    ],
)
def test_what_is_no_wish_for_this_pipeline_is_refused(body: bytes, said: str) -> None:
    projector = Recording()
    with pytest.raises(SettingsError, match=said):
        take_wish(projector, tallies, body)
    assert projector.wished == []
