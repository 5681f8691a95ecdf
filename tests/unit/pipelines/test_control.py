"""Wishes from a second terminal, as the running projector takes them."""

import json
from collections.abc import Iterable
from typing import Any, Self

import msgspec
import pytest
from magnetar.pipelines import Pipeline
from magnetar.pipelines.control import KeyWish, Settling, take_wish
from magnetar.pipelines.wishes import Wish
from magnetar.projections import Fold
from magnetar.projections.fingerprint import fingerprint_of
from magnetar.projections.generations import Origin
from magnetar.projections.scratch_rows import ScratchRows
from magnetar.schemas import SettingsError

from tests.unit.pipelines.counting_rig import Added, Tally, tallies


class Recording:
    """Keeps what is wished."""

    def __init__(self) -> None:
        self.wished: list[tuple[Wish, list[str]]] = []
        self.origins: list[Origin] = []
        self.settled: list[Settling] = []
        self.kept: list[ScratchRows] = []

    def wish(self, wish: Wish, names: Iterable[str], origin: Origin = Origin.TOPICS) -> None:
        self.wished.append((wish, list(names)))
        self.origins.append(origin)

    def settle(self, settling: Settling) -> None:
        self.settled.append(settling)

    def keep_scratch(self, rows: ScratchRows) -> None:
        self.kept.append(rows)


def asked(**changes: Any) -> bytes:
    return json.dumps(
        {"wish": "rebuild", "pipeline": "tallies", "names": ["Tally"], "fingerprints": {}, **changes}
    ).encode()


def test_a_wish_reaches_the_projector() -> None:
    projector = Recording()
    assert json.loads(take_wish(projector, tallies, asked())) == {"other_code": []}
    assert projector.wished == [(Wish.REBUILD, ["Tally"])]
    take_wish(projector, tallies, asked(origin="mirror"))
    assert projector.origins == [Origin.TOPICS, Origin.MIRROR]


class Last(Fold):
    total: int = 0

    def apply(self, event: Added) -> Self:
        return self.replace(total=event.total)


def test_a_projector_with_other_code_of_the_projection_says_so_and_does_nothing() -> None:
    projector, folding = Recording(), Pipeline("tallies", aggregates=[Tally], projections=[Last])
    names, same = ["Tally", "Last"], {"Last": fingerprint_of(Last)}
    for fingerprints in ({}, {"Last": "another"}):
        answer = take_wish(projector, folding, asked(names=names, fingerprints=fingerprints))
        assert json.loads(answer) == {"other_code": ["Last"]}
    assert projector.wished == []
    assert json.loads(take_wish(projector, folding, asked(names=names, fingerprints=same))) == {"other_code": []}
    assert projector.wished == [(Wish.REBUILD, names)]


def test_what_is_to_be_done_with_quarantined_keys_reaches_it_too() -> None:
    projector, folding = Recording(), Pipeline("tallies", aggregates=[Tally], projections=[Last])
    settling = Settling("drop", (KeyWish("Last", "Tally", 1, "a", "n"),), "a test", "ann")
    said, same = msgspec.to_builtins(settling), {"Last": fingerprint_of(Last)}
    assert json.loads(take_wish(projector, folding, asked(settling=said, fingerprints={}))) == {"other_code": ["Last"]}
    assert projector.settled == []
    assert json.loads(take_wish(projector, folding, asked(settling=said, fingerprints=same))) == {"other_code": []}
    assert projector.settled == [settling]


def test_the_rows_of_a_scratch_table_reach_it_too_whatever_code_it_runs() -> None:
    projector, folding = Recording(), Pipeline("tallies", aggregates=[Tally], projections=[Last])
    rows = ScratchRows("last", "scratch-a", (("total", "Int64"),), "a comment")
    answer = take_wish(projector, folding, asked(scratch=msgspec.to_builtins(rows)))
    assert json.loads(answer) == {"other_code": []}
    assert projector.kept == [rows]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "That is no wish"),
        (b"[]", "That is no wish"),
        (asked(wish="destroy"), "That is no wish"),
        (asked(names=7), "That is no wish"),
        (asked(scratch={}), "That is no wish"),
        (asked(fingerprints=None), "That is no wish"),
        (asked(pipeline="shop"), "runs on this data folder is 'tallies', not 'shop'"),
        (asked(names=["Order"]), "Order"),
        (asked(settling={"step": "burn", "keys": []}), "That is no wish"),
        (asked(settling={"step": "retry", "keys": []}, pipeline="shop"), "not 'shop'"),
    ],
)
def test_what_is_no_wish_for_this_pipeline_is_refused(body: bytes, said: str) -> None:
    projector = Recording()
    with pytest.raises(SettingsError, match=said):
        take_wish(projector, tallies, body)
    assert projector.wished == []
