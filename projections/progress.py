"""How far the tables are, as ClickHouse tells whoever looks from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from uuid import NAMESPACE_URL

from magnetar.schemas import MessageId
from magnetar.schemas.ids import NIL
from magnetar.schemas.read_rule import Mark

from .columns import literal, quoted
from .tables import shown_names

Ask: TypeAlias = Callable[[str], list[dict[str, Any]]]
"""Answers a query with its rows. Raises MagnetarError."""


def mirrored(ask: Ask, context: str) -> dict[tuple[str, int], int]:
    """By aggregate and partition, the number of the last commit in the tables."""
    sql = "SELECT _aggregate AS a, _partition AS p, max(_number) AS n"
    return {(row["a"], row["p"]): int(row["n"]) for row in ask(f"{sql} FROM {quoted(context)}.commits GROUP BY a, p")}


def events_of(ask: Ask, context: str, aggregate: str, types: Sequence[str] | None) -> int:
    """How many events of these types the mirror of an aggregate has that is shown; None for all types."""
    which = "" if types is None else f" WHERE type IN ({', '.join(map(literal, types))})"
    view = f"{quoted(context)}.{quoted(shown_names(aggregate)[0])}"
    return int(ask(f"SELECT toString(count()) AS n FROM {view}{which}")[0]["n"])


def outcomes(ask: Ask, context: str) -> dict[tuple[str, str], int]:
    """By aggregate and outcome, how many commits there are in the tables."""
    sql = "SELECT _aggregate AS a, outcome AS o, count() AS n"
    return {(row["a"], row["o"]): int(row["n"]) for row in ask(f"{sql} FROM {quoted(context)}.commits GROUP BY a, o")}


def unsettled(ask: Ask, context: str) -> dict[str, int]:
    """By aggregate, how many commits are parked and no later commit resolves them, as `magnetar parked` lists them."""
    commits = f"{quoted(context)}.commits"
    rows = ask(
        f"SELECT parked._aggregate AS a, count() AS n FROM ("
        f"SELECT _aggregate, _partition, _number, {_id_of_parked(context)} AS id FROM {commits} "
        "WHERE outcome = 'parked') AS parked LEFT JOIN ("
        f"SELECT _aggregate, assumeNotNull(resolves) AS id, groupArray((_partition, _number)) AS places FROM {commits} "
        "WHERE resolves IS NOT NULL GROUP BY _aggregate, id) AS settling "
        "ON parked._aggregate = settling._aggregate AND parked.id = settling.id WHERE NOT arrayExists("
        "place -> place.1 != parked._partition OR place.2 > parked._number, settling.places) GROUP BY a"
    )
    return {row["a"]: int(row["n"]) for row in rows}


def places(ask: Ask, context: str) -> dict[tuple[str, int], Mark]:
    """By aggregate and partition, the place in the log before the range that the mirror that is shown took in last."""
    prefix = f"{context}/"
    rows = ask(
        "WITH shown AS (SELECT aggregate, argMax(generation, nth) AS nth_shown FROM magnetar.generations "
        "WHERE `projection` = 'mirror' AND step = 'shown' GROUP BY aggregate) "
        "SELECT aggregate, partition, toString(first) AS first, after, owner "
        "FROM magnetar.pending LEFT JOIN shown USING (aggregate) "
        f"WHERE `projection` = 'mirror' AND startsWith(aggregate, {literal(prefix)}) "
        "AND generation = greatest(nth_shown, 1) "
        "ORDER BY epoch DESC, nonce DESC, magnetar.pending.first DESC LIMIT 1 BY aggregate, partition"
    )
    return {(row["aggregate"].removeprefix(prefix), row["partition"]): _mark(row) for row in rows}


def furthest_places(ask: Ask, context: str, aggregates: Sequence[str]) -> dict[tuple[str, int], Mark]:
    """By aggregate and partition, the place in the log before the last range that any table has begun."""
    of = ", ".join(literal(f"{context}/{aggregate}") for aggregate in aggregates)
    rows = ask(
        "SELECT aggregate, partition, toString(first) AS first, after, owner FROM magnetar.pending "
        f"WHERE aggregate IN ({of}) ORDER BY magnetar.pending.first DESC LIMIT 1 BY aggregate, partition"
    )
    prefix = f"{context}/"
    return {(row["aggregate"].removeprefix(prefix), row["partition"]): _mark(row) for row in rows}


def incarnations(ask: Ask, context: str) -> dict[str, set[str]]:
    """By aggregate, the incarnations of its event topic that the tables' last ranges were read from."""
    prefix = f"{context}/"
    rows = ask(
        "SELECT aggregate AS a, groupUniqArray(newest) AS found FROM (SELECT aggregate, "
        "argMax(incarnation, (epoch, nonce, first)) AS newest FROM magnetar.pending "
        f"WHERE startsWith(aggregate, {literal(prefix)}) GROUP BY `projection`, generation, aggregate, partition) "
        "WHERE newest != '' GROUP BY a"
    )
    return {row["a"].removeprefix(prefix): set(row["found"]) for row in rows}


def table_sizes(ask: Ask, context: str) -> dict[str, tuple[int, int]]:
    """By quoted table, its rows and its bytes on disk, as the parts say; an empty table is left out."""
    rows = ask(
        "SELECT table, toString(sum(rows)) AS n, toString(sum(bytes_on_disk)) AS size FROM system.parts "
        f"WHERE active AND database = {literal(context)} GROUP BY table"
    )
    return {f"{quoted(context)}.{quoted(row['table'])}": (int(row["n"]), int(row["size"])) for row in rows}


FINGERPRINT: Final = "extract(comment, 'fingerprint ([0-9a-f]{16})')"
"""What of a table's comment says under which declaration it is filled."""


def fingerprinted(said: str, fingerprint: str) -> str:
    """A table's comment."""
    return f"{said} (fingerprint {fingerprint})"


def fingerprints(ask: Ask, context: str) -> dict[str, str]:
    """By quoted table, the declaration under which it is filled, where it says so."""
    rows = ask(f"SELECT name, {FINGERPRINT} AS found FROM system.tables WHERE database = {literal(context)}")
    return {f"{quoted(context)}.{quoted(row['name'])}": row["found"] for row in rows if row["found"]}


def taken_in(ask: Ask, context: str) -> dict[tuple[str, str, int], int]:
    """By projection, aggregate and generation, how many commits the tables have, over all partitions."""
    prefix = f"{context}/"
    rows = ask(
        "SELECT p, a, g, toString(sum(n)) AS n FROM (SELECT `projection` AS p, aggregate AS a, generation AS g, "
        "argMax(last, (epoch, nonce, first, last)) AS n FROM magnetar.pending "
        f"WHERE startsWith(aggregate, {literal(prefix)}) GROUP BY p, a, g, partition) GROUP BY p, a, g"
    )
    return {(row["p"], row["a"].removeprefix(prefix), row["g"]): int(row["n"]) for row in rows}


def _id_of_parked(context: str) -> str:
    """What a parked commit is called: its command's id, or, without one, a UUIDv5 of its position (RFC 9562, 5.5)."""
    position = f"concat({literal(context + '/')}, _aggregate, '/', toString(_partition), '/', toString(_number))"
    digest = f"lower(hex(SHA1(concat(unhex('{NAMESPACE_URL.hex}'), {position}))))"
    variant = f"lower(hex(bitOr(bitAnd(reinterpretAsUInt8(unhex(substring({digest}, 17, 2))), 63), 128)))"
    parts = f"substring({digest}, 1, 12), '5', substring({digest}, 14, 3), {variant}, substring({digest}, 19, 14)"
    uuid = f"toUUID(replaceRegexpOne(concat({parts}), '(.{{8}})(.{{4}})(.{{4}})(.{{4}})', '\\\\1-\\\\2-\\\\3-\\\\4-'))"
    return f"if(_command_id = toUUID({literal(NIL)}), {uuid}, _command_id)"


def _mark(row: dict[str, Any]) -> Mark:
    after = None if row["after"] is None else MessageId(*(int(part) for part in row["after"].split(":")))
    return Mark(after, None if row["owner"] is None else bytes.fromhex(row["owner"]), int(row["first"]))
