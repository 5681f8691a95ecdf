"""What of a ClickHouse server would lose rows, or hold up who writes there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from magnetar.projections.columns import quoted
from magnetar.projections.declarations import has_table, view_name
from magnetar.projections.decoding_trial import misreading
from magnetar.projections.endpoint import Endpoint
from magnetar.projections.engine_trial import try_engine
from magnetar.projections.store import TESTED, Store
from magnetar.projections.tables import DEDUPLICATION_WINDOW_PER_PARTITION
from magnetar.schemas import QueryRefused, StoreUnavailable

from .clock import Clock
from .pipeline import Pipeline
from .preflight import Finding, Severity

CLOCK_SECONDS_MAX: Final = 10.0
"""So far a server's clock may be from ours: freshness and the age of what is kept back are told by it."""

_NEEDED: Final = {
    "{context}.*": "CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, ALTER TABLE, SELECT, INSERT",
    "magnetar.*": "CREATE DATABASE, CREATE TABLE, DROP TABLE, ALTER TABLE, SELECT, INSERT",
    "*.*": "KILL QUERY, CREATE TEMPORARY TABLE",
}
"""What a projector's user has to be granted, by where."""

_CLICKHOUSE: Final = "ClickHouse"


def examine_server(pipeline: Pipeline, server: Endpoint, clock: Clock) -> list[Finding]:
    """Look at a server, and at this pipeline's tables there. Leaves nothing behind."""
    try:
        store = Store(server)
    except StoreUnavailable as error:
        what = "there are no tables to query; commands are decided all the same"
        return [Finding(Severity.DANGEROUS, "server", _CLICKHOUSE, error.what, "answering", what, error.cure)]
    try:
        return examine_store(pipeline, store, server, clock)
    finally:
        store.close()


def examine_store(pipeline: Pipeline, store: Store, server: Endpoint, clock: Clock) -> list[Finding]:
    """The same of a server that is connected. What it has to be able to do is tried, if the rights are there."""
    lacking = list(_rights(pipeline, store, server))
    tried = [] if lacking else [*examine_engine(store), *examine_decoding(pipeline, store)]
    return [*_server(store, clock), *_cluster(store), *lacking, *tried, *_tables(pipeline, store)]


def examine_engine(store: Store) -> list[Finding]:
    """What an engine cannot do that a projector needs. Raises StoreUnavailable if a server does not answer."""
    mend = "use a version of ClickHouse that is tested, with a user who has the rights that docs/operations.md lists"
    return [
        Finding(Severity.DANGEROUS, each.check, _CLICKHOUSE, each.found, each.wanted, each.lost, mend)
        for each in try_engine(store)
    ]


def examine_decoding(pipeline: Pipeline, store: Store) -> list[Finding]:
    """The aggregates whose commits an engine does not decode itself. Raises StoreUnavailable if it does not answer."""
    with tempfile.TemporaryDirectory(prefix="magnetar-") as folder:
        found = {
            aggregate: misreading(store, schema.commit_json, Path(folder) / "tried.block")
            for aggregate, schema in pipeline.schemas.items()
        }
    lost = "its tables are filled at a fraction of the rate"
    mend = "use a version of ClickHouse that is tested, or change what it names"
    return [
        Finding(
            Severity.WARNING,
            "decoding",
            f"{pipeline.name}/{aggregate}",
            f"by Python: {why}",
            "by ClickHouse",
            lost,
            mend,
        )
        for aggregate, why in found.items()
        if why is not None
    ]


def _server(store: Store, clock: Clock) -> Iterator[Finding]:
    ((version, at_ms),) = store.query("SELECT version(), toUnixTimestamp64Milli(now64(3))")
    if not version.startswith(f"{TESTED}."):
        what = "what is promised is tested with that version alone"
        yield Finding(Severity.WARNING, "version", _CLICKHOUSE, version, TESTED, what, "try it before you trust it")
    if (off := abs(clock.now_ms() - at_ms) / 1000) > CLOCK_SECONDS_MAX:
        found, wanted = f"{off:.0f} s from ours", f"within {CLOCK_SECONDS_MAX:g} s"
        what = "ages and freshness are told wrong; rows are not"
        yield Finding(Severity.WARNING, "clock", _CLICKHOUSE, found, wanted, what, "synchronize the clocks (NTP)")


def _cluster(store: Store) -> Iterator[Finding]:
    """Replicated tables are made as they should be; that they keep each row once has been seen on no cluster."""
    if not store.cluster:
        return
    what = "that each row is there once is not tested on a cluster, and one server is what the argument is about"
    yield Finding(
        Severity.WARNING, "cluster", _CLICKHOUSE, store.cluster, "one server", what, "unset MAGNETAR_CLICKHOUSE_CLUSTER"
    )
    if not store.query("SELECT 1 FROM system.clusters WHERE cluster = {name:String}", {"name": store.cluster}):
        what, mend = "no table can be made", "correct MAGNETAR_CLICKHOUSE_CLUSTER, or the server's remote_servers"
        yield Finding(
            Severity.DANGEROUS, "cluster", _CLICKHOUSE, f"none called {store.cluster}", store.cluster, what, mend
        )


def _rights(pipeline: Pipeline, store: Store, server: Endpoint) -> Iterator[Finding]:
    needed = _NEEDED | ({"*.*": f"{_NEEDED['*.*']}, CLUSTER"} if store.cluster else {})
    for where, rights in needed.items():
        on = where.format(context=quoted(pipeline.name))
        lacking = [right for right in rights.split(", ") if not _is_granted(store, right, on)]
        if lacking:
            listed = ", ".join(lacking)
            what = "the projector cannot make or fill its tables"
            mend = f"GRANT {listed} ON {on} TO {server.user}"
            yield Finding(
                Severity.DANGEROUS, f"rights on {on}", server.user, f"without {listed}", "granted", what, mend
            )


def _is_granted(store: Store, right: str, on: str) -> bool:
    try:
        ((found,),) = store.query(f"CHECK GRANT {right} ON {on}")
    except QueryRefused:  # older than 24.10, and does not know how to say it: the projector will
        return True
    return bool(found)


def _tables(pipeline: Pipeline, store: Store) -> Iterator[Finding]:
    """A window that somebody has narrowed would let a repeated insert in twice."""
    together = {
        view_name(each): sum(pipeline.events_of(aggregate).partitions for aggregate in pipeline.aggregates_of(each))
        for each in pipeline.projections
        if has_table(each)
    }
    rows = store.query(
        "SELECT name, engine_full FROM system.tables WHERE database = {context:String} "
        "AND match(name, '__g[0-9]+$') ORDER BY name",
        {"context": pipeline.name},
    )
    setting = f"{'' if store.cluster else 'non_'}replicated_deduplication_window"
    for name, engine in rows:
        found = re.search(rf"\b{setting} = (\d+)", engine)
        window = 0 if found is None else int(found[1])
        partitions = together.get(name.rpartition("__g")[0], pipeline.partitions)
        if window < (wanted := DEDUPLICATION_WINDOW_PER_PARTITION * partitions):
            yield Finding(
                Severity.DANGEROUS,
                "deduplication window",
                f"{pipeline.name}.{name}",
                str(window),
                f"at least {wanted}",
                "an insert that is repeated after a crash can be in the table twice",
                f"ALTER TABLE {quoted(pipeline.name)}.{quoted(name)} MODIFY SETTING {setting} = {wanted}",
            )
