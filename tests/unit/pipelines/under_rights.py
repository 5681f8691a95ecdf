"""Flights in the tables of an engine whose user has certain rights and no more: one process, one set of rights.

    python -m tests.unit.pipelines.under_rights FOLDER GRANT… -- SQL…

A GRANT is as ClickHouse's `users.xml` takes it: without TO. Without SQL, a projector makes its tables, fills them,
rebuilds one and drops the old one. What came of it stands in the output, as JSON.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import chdb
from magnetar.pipelines.rebuild_status import generations_of
from magnetar.pipelines.wishes import Wish
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import MagnetarError

from tests.unit.pipelines.boards import Board1, Running, pipeline

CONFIG: Final = """<clickhouse>
  <users><default>
    <password></password><profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>
    <grants>{grants}</grants>
  </default></users>
  <profiles><default/></profiles><quotas><default/></quotas>
  <user_directories><users_xml><path>{path}</path></users_xml></user_directories>
</clickhouse>"""


def restrict(folder: Path, grants: Sequence[str]) -> None:
    """Let the engine that this process opens have one user, with these rights."""
    path, connect = folder / "rights.xml", chdb.connect
    path.write_text(CONFIG.format(grants="".join(f"<query>{grant}</query>" for grant in grants), path=path))

    def restricted(at: str, *more: Any, **options: Any) -> Any:
        return connect(f"{at}?config-file={path}", *more, **options)

    chdb.connect = restricted


def carry_through(data: Path) -> list[list[Any]]:
    """What a projector does in its life; returns what can be seen then."""
    running = Running(data)
    running.schedule("UA1", "UA2")
    projector = running.projector(Board1)
    for wish in (Wish.REBUILD, Wish.DROP_OLD):
        projector.wish(wish, ["Board"])
        while projector.step() or generations_of(running.store.rows, pipeline(Board1), "Board").wanted is not None:
            pass
    projector.close()
    found = [list(row) for row in running.rows("_id, status")]
    running.close()
    return found


def ask(data: Path, sql: Sequence[str]) -> list[str]:
    """By statement, `done`, or what the engine says."""
    store, found = Store(embedded_dsn(data)), list[str]()
    for each in sql:
        try:
            store.rows(each) if each.startswith("SELECT") else store.command(each)
            found.append("done")
        except MagnetarError as error:
            found.append(error.what)
    store.close()
    return found


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    split = rest.index("--")
    restrict(Path(folder), rest[:split])
    data = Path(folder) / "data"
    print(json.dumps(ask(data, rest[split + 1 :]) if rest[split + 1 :] else carry_through(data)))
