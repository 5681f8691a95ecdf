"""What a projector needs of an engine is tried there."""

from magnetar.projections.engine_trial import try_engine
from magnetar.projections.store import Store


def test_an_engine_that_can_do_all_is_found_so_and_left_as_it_was(store: Store) -> None:
    assert try_engine(store) == []
    assert store.query("SELECT name FROM system.tables WHERE name LIKE 'tried%'") == []


def test_an_engine_that_takes_a_repeated_insert_twice_is_dangerous(store: Store) -> None:
    (found,) = try_engine(store, window=0)
    assert found[:3] == ("a repeated insert", "there 2 times", "there once")
    assert store.query("SELECT name FROM system.tables WHERE name LIKE 'tried%'") == []
