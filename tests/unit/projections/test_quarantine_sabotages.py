"""Each protection of the quarantine taken away, by a patch and not by a switch in the product: a test must fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from magnetar.projections.leased_table import LeasedTable
from magnetar.projections.projected_table import ProjectedTable
from magnetar.projections.quarantine import DROP, RETRY, Holding, Quarantine
from magnetar.projections.quarantining_table import QuarantiningTable
from magnetar.projections.store import Store
from magnetar.schemas import MagnetarError

from tests.unit.projections import test_quarantine as tested
from tests.unit.projections.test_quarantine import Amounts, Sums

Sabotage = Callable[[pytest.MonkeyPatch], None]

a_kill_while_held = tested.test_a_kill_while_an_event_is_being_kept_back_changes_nothing
a_kill_in_a_release = tested.test_a_kill_in_the_middle_of_a_release_lets_nothing_in_twice


def successors_not_held_back(patch: pytest.MonkeyPatch) -> None:
    """Only the event that was raised on is kept back; what comes behind it of the same key goes on."""
    patch.setattr(Holding, "takes", lambda self, fact: (fact.aggregate_id, fact.version) in self.settled)


def what_is_held_not_written_down(patch: pytest.MonkeyPatch) -> None:
    """The process alone knows what it keeps back."""
    patch.setattr(QuarantiningTable, "hold_back", lambda *_: None)


def what_is_held_written_down_behind_the_rest(patch: pytest.MonkeyPatch) -> None:
    """The other rows of the range are inserted first."""
    hold_back, insert_rows = QuarantiningTable.hold_back, ProjectedTable.insert_rows
    later: list[Callable[[], None]] = []

    def insert_first(self: Any, *arguments: Any, **options: Any) -> None:
        insert_rows(self, *arguments, **options)
        while later:
            later.pop()()

    patch.setattr(QuarantiningTable, "hold_back", lambda *arguments: later.append(partial(hold_back, *arguments)))
    patch.setattr(ProjectedTable, "insert_rows", insert_first)


def what_is_held_not_read(patch: pytest.MonkeyPatch) -> None:
    """Whoever opens the partition does not ask what is held."""
    patch.setattr(Quarantine, "has_any", lambda *_: False)


def released_out_of_order(patch: pytest.MonkeyPatch) -> None:
    """What is held of a key is let in with its newest event first."""
    held = Quarantine.held
    patch.setattr(Quarantine, "held", lambda self, partition, id: held(self, partition, id)[::-1])


def released_without_looking_whether_it_is_there(patch: pytest.MonkeyPatch) -> None:
    """A release that was cut short before it was written down is made from its first event again."""
    patch.setattr(QuarantiningTable, "versions", lambda *_: {})


def released_and_not_counted(patch: pytest.MonkeyPatch) -> None:
    """The pending row goes on saying how many rows there were without those that were let in."""
    patch.setattr(ProjectedTable, "recount", lambda *_: None)


def limit_not_enforced(patch: pytest.MonkeyPatch) -> None:
    """However many keys are held, there is room for more."""
    patch.setattr(QuarantiningTable, "room", lambda _: 1_000_000)


def dropped_comes_in_with_its_range(patch: pytest.MonkeyPatch) -> None:
    """Of a range that is replayed, it is not asked what was given up."""
    patch.setattr(Quarantine, "settled", lambda *_: frozenset())


def drop_not_written_down_under_its_wish(patch: pytest.MonkeyPatch) -> None:
    """A drop that was cut short behind its first step gives up one event more."""
    wishes = Quarantine.wishes
    patch.setattr(Quarantine, "wishes", lambda self: [each._replace(is_dropped=False) for each in wishes(self)])


def lease_not_checked(patch: pytest.MonkeyPatch) -> None:
    """What is held and what is let in is written whoever has the lease."""
    patch.setattr(LeasedTable, "_guard", lambda *_: "1")


CASES: Final[list[tuple[Sabotage, Callable[..., None]]]] = [
    (successors_not_held_back, tested.test_one_bad_event_keeps_its_key_back_and_the_others_flow),
    (what_is_held_not_written_down, partial(a_kill_while_held, failpoint="after_insert")),
    (what_is_held_written_down_behind_the_rest, partial(a_kill_while_held, failpoint="between_tables")),
    (what_is_held_not_read, partial(a_kill_in_a_release, step=DROP, failpoint="after_drop")),
    (released_out_of_order, tested.test_a_retry_lets_them_in_in_their_order_once_it_is_mended),
    (released_without_looking_whether_it_is_there, partial(a_kill_in_a_release, step=RETRY, failpoint="after_recount")),
    (released_and_not_counted, tested.test_a_retry_lets_them_in_in_their_order_once_it_is_mended),
    (limit_not_enforced, tested.test_too_many_keys_stop_the_partition),
    (
        dropped_comes_in_with_its_range,
        tested.test_what_was_dropped_does_not_come_in_with_its_range_when_that_is_replayed,
    ),
    (drop_not_written_down_under_its_wish, partial(a_kill_in_a_release, step=DROP, failpoint="after_drop")),
    (lease_not_checked, tested.test_who_has_lost_the_lease_neither_keeps_back_nor_releases),
]


wrong = tested.wrong


@pytest.mark.parametrize(
    ("sabotage", "test", "projection"),
    [
        pytest.param(sabotage, test, projection, id=f"{sabotage.__name__}-{projection.__name__}")
        for sabotage, test in CASES
        for projection in (Amounts, Sums)
        if (sabotage, projection) != (released_and_not_counted, Sums)  # a fold counts keys, and that one is there
    ],
)
def test_the_sabotage_is_caught(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Sabotage,
    test: Callable[..., None],
    projection: type[Any],
) -> None:
    sabotage(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, MagnetarError)) as caught:
        test(store, tmp_path, projection=projection)
    print(f"{sabotage.__name__}: {str(caught.value).splitlines()[0]}")
