"""The generations of a table: what their steps come to, and which steps a wish asks for."""

import pytest
from magnetar.projections.generations import (
    DEFINITION,
    WITH_ORIGIN,
    Generations,
    Kind,
    Origin,
    Step,
    behind,
    of_steps,
    steps_query,
)
from magnetar.projections.store import Store
from magnetar.schemas import SettingsError


def carried_out(known: Generations) -> Generations:
    """The wanted generation has caught up and is shown."""
    assert known.wanted is not None
    return known.after(Step(known.wanted, Kind.SHOWN))


def wished(known: Generations, steps: list[Step]) -> Generations:
    for step in steps:
        known = known.after(step)
    return known


FIRST = of_steps([])
REBUILDING = wished(FIRST, FIRST.rebuild())
REBUILT = carried_out(REBUILDING)


def test_at_first_generation_1_is_fed_and_shown() -> None:
    assert Generations(fed=(1,), shown=1, before=None, wanted=None, filling=None, last=1) == FIRST


def test_a_rebuild_feeds_the_next_generation_and_goes_on_showing_the_old_one() -> None:
    assert Generations(fed=(1, 2), shown=1, before=None, wanted=2, filling=2, last=2) == REBUILDING


def test_a_rebuild_that_is_under_way_is_not_begun_again() -> None:
    assert REBUILDING.rebuild() == []


def test_after_the_swap_the_old_generation_is_fed_still() -> None:
    assert Generations(fed=(1, 2), shown=2, before=1, wanted=None, filling=None, last=2, swaps=1) == REBUILT


def test_a_rollback_wants_the_generation_that_was_shown_before_and_a_second_one_takes_it_back() -> None:
    back = carried_out(wished(REBUILT, REBUILT.rollback()))
    assert (back.shown, back.before, back.fed) == (1, 2, (1, 2))
    forth = carried_out(wished(back, back.rollback()))
    assert (forth.shown, forth.before) == (2, 1)


def test_a_rollback_to_what_is_dropped_is_refused() -> None:
    dropped = wished(REBUILT, REBUILT.drop_old())
    assert dropped.fed == (2,)
    for known in (FIRST, REBUILDING, dropped):
        with pytest.raises(SettingsError, match="none that was shown before is kept"):
            known.rollback()


def test_the_next_rebuild_drops_what_is_not_shown_and_gives_a_number_that_none_ever_had() -> None:
    back = carried_out(wished(REBUILT, REBUILT.rollback()))
    again = wished(back, back.rebuild())
    assert (again.fed, again.shown, again.filling, again.last) == ((1, 3), 1, 3, 3)


def test_a_cancelled_rebuild_leaves_what_is_shown() -> None:
    cancelled = wished(REBUILDING, REBUILDING.cancel())
    assert (cancelled.fed, cancelled.shown, cancelled.wanted, cancelled.last) == ((1,), 1, None, 2)
    with pytest.raises(SettingsError, match="No rebuild is under way"):
        cancelled.cancel()


def test_nothing_old_is_to_be_dropped_before_a_swap() -> None:
    for known in (FIRST, REBUILDING):
        with pytest.raises(SettingsError, match="no older one is kept"):
            known.drop_old()


@pytest.mark.parametrize(
    "step", [Step(9, Kind.SHOWN), Step(3, Kind.DROPPED), Step(2, Kind.SHOWN), Step(2, Kind.WANTED)]
)
def test_a_step_that_means_nothing_changes_nothing(step: Step) -> None:
    assert REBUILT.after(step) == REBUILT


def test_what_is_shown_is_never_dropped() -> None:
    assert REBUILDING.after(Step(1, Kind.DROPPED)) == REBUILDING


def test_a_generation_is_behind_where_a_partition_lacks_commits() -> None:
    assert behind({0: 5, 1: 7}, {0: 5, 1: 6}) == {1: 1}
    assert behind({0: 5, 1: 7}, {1: 7}) == {0: 5}
    assert behind({0: 5}, {0: 8, 1: 3}) == {}


def test_a_rebuild_keeps_what_it_is_filled_from() -> None:
    begun = of_steps(Generations().rebuild(Origin.MIRROR))
    assert (begun.filling, begun.origin) == (2, Origin.MIRROR)
    assert begun.rebuild() == begun.rebuild(Origin.MIRROR) == []
    from_topics = of_steps(Generations().rebuild())
    with pytest.raises(SettingsError, match="is being filled from the topics already") as caught:
        from_topics.rebuild(Origin.MIRROR)
    assert "give it up with `--cancel`" in caught.value.cure


def test_what_an_older_projector_has_written_down_is_filled_from_the_topics(store: Store) -> None:
    store.command("CREATE DATABASE IF NOT EXISTS older")
    statement = DEFINITION.replace("magnetar.generations", "older.generations")
    store.command(statement)
    store.command(
        "INSERT INTO older.generations (`projection`, aggregate, nth, generation, step) "
        "VALUES ('p', 'a', 1, 2, 'wanted')"
    )
    query = steps_query("p", "a").replace("magnetar.generations", "older.generations")
    assert [tuple(row) for row in store.query(query)] == [(2, "wanted")]
    store.command(WITH_ORIGIN.replace("magnetar.generations", "older.generations"))
    assert [tuple(row) for row in store.query(query)] == [(2, "wanted", "topics")]


def test_two_steps_that_were_written_down_at_once_have_one_order_for_everybody(store: Store) -> None:
    for database, first, second in (("one", "shown", "dropped"), ("other", "dropped", "shown")):
        store.command(f"CREATE DATABASE IF NOT EXISTS {database}")
        store.command(DEFINITION.replace("magnetar.generations", f"{database}.generations"))
        for step in (first, second):  # a part each, in the order in which they came
            store.command(
                f"INSERT INTO {database}.generations (`projection`, aggregate, nth, generation, step, at) "
                f"VALUES ('p', 'a', 2, 2, '{step}', '2026-01-01 00:00:00')"
            )
    one, other = (
        list(map(tuple, store.query(steps_query("p", "a").replace("magnetar.", f"{each}."))))
        for each in ("one", "other")
    )
    assert one == other == [(2, "dropped"), (2, "shown")]
