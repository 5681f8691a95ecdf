"""Which tables a projector feeds that was told some of them."""

import pytest
from magnetar.pipelines.projector_group import Group, group_of
from magnetar.schemas import SettingsError

from examples.flights.flight import Flight
from magnetar import Pipeline
from tests.unit.pipelines.boards import Board1, Board2, pipeline
from tests.unit.pipelines.purses import purses

BOARDS = pipeline(Board1)


def test_who_is_told_nothing_feeds_all_and_is_in_no_group() -> None:
    assert group_of(BOARDS) == Group(frozenset({"Flight", "Planned", "Board"}), ("Flight",), "")


def test_what_one_group_names_the_other_one_leaves_away() -> None:
    named, rest = group_of(BOARDS, ["Board", "Planned"]), group_of(BOARDS, (), ["Planned", "Board"])
    assert sorted(named.tables) == ["Board", "Planned"]
    assert sorted(rest.tables) == ["Flight"]
    assert len({named.key, rest.key, group_of(BOARDS).key}) == 3, "each shares the partitions among itself"


def test_a_group_is_told_by_what_was_said_in_any_order_and_any_release() -> None:
    assert group_of(BOARDS, ["Board", "Planned"]) == group_of(BOARDS, ["Planned", "Board", "Board"])
    fewer = Pipeline("flights", aggregates=[Flight], projections=[Board2], partitions=2)
    assert group_of(fewer, (), ["Board"]).key == group_of(BOARDS, (), ["Board"]).key


def test_a_group_reads_the_aggregates_that_its_tables_take() -> None:
    assert group_of(purses, ["Door"]).aggregates == ("Door",)
    assert group_of(purses, (), ["Door"]).aggregates == ("Purse",)


REFUSED = {
    "has no aggregate 'Bord', and no projection with a table of that name": (["Bord"], []),
    "has no aggregate 'Plans'": ([], ["Plans"]),
    "--table and --without-table were both given": (["Board"], ["Planned"]),
    "Nothing is left to feed": ([], ["Flight", "Planned", "Board"]),
}


@pytest.mark.parametrize(("said", "given"), REFUSED.items(), ids=REFUSED)
def test_groups_that_cannot_be_are_refused(said: str, given: tuple[list[str], list[str]]) -> None:
    with pytest.raises(SettingsError) as refused:
        group_of(BOARDS, *given)
    assert said in str(refused.value)
