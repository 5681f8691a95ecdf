"""One embedded ClickHouse for all tests of a process."""

from collections.abc import Iterator

import pytest
from magnetar.projections.leased_table import ADMIN_DEFINITIONS
from magnetar.projections.store import Store, embedded_dsn


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A real engine; tests use a database of their own."""
    store = Store(embedded_dsn(tmp_path_factory.mktemp("store")))
    for statement in ADMIN_DEFINITIONS:
        store.command(statement)
    yield store
    store.close()
