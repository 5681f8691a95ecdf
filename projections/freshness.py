"""How far each projection is: the view `freshness` of a context, and whether a table has what somebody has written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from magnetar.schemas import Position, QueryRefused, SettingsError, StoreUnavailable, TablesBehind

from .columns import literal, quoted
from .held import open_query
from .progress import Ask

FRESHNESS: Final = "freshness"
MIRROR: Final = "mirror"
"""What the event views, `commits` and `rejections` are kept by."""

WAIT_SECONDS: Final = 10.0
"""How long a query waits for the tables, unless it says otherwise."""

PAUSE_SECONDS_MIN: Final = 0.01
PAUSE_SECONDS_MAX: Final = 0.25
"""Between two looks at how far the tables are, each longer than the one before: a look costs ClickHouse some ms."""

T = TypeVar("T")


class Kept(NamedTuple):
    """What keeps a projection up to date: a table per generation, which views show."""

    projection: str
    """The view that users query; MIRROR for the event views together."""
    aggregate: str
    """One that it takes commits of, without the context unless that is another one."""
    kept_by: str
    """The projection whose ranges are written down in magnetar.pending."""
    views: tuple[str, ...]
    """The views over the tables of one generation. While they are being swapped, the one that is behind counts."""
    partitions: int
    """Of the aggregate's topics."""


class Standing(NamedTuple):
    """How far a projection is on one partition."""

    projection: str
    number: int
    """It has all commits up to this one."""
    age_seconds: float | None
    """How long ago that was written down; None if it has nothing."""


def freshness_view(context: str, kept: Sequence[Kept]) -> str:
    """The statement that creates the view: a row for each projection, aggregate, and partition.

    A generation's progress is read before the views say which generation they show (a scalar subquery is evaluated
    first): a swap in between shows one that has all that the other one had, so what a row says is never too much.
    """
    rows = [
        f"({literal(each.projection)}, {literal(each.aggregate)}, {literal(each.kept_by)}, {literal(view)}, "
        f"{each.partitions})"
        for each in kept
        for view in each.views
    ]
    views = ", ".join(literal(view) for view in sorted({view for each in kept for view in each.views}))
    select = f"""
    WITH (
        SELECT groupArray((kept_by, of, generation, nth, number, at)) FROM (
            SELECT kept_by, of, generation, nth, max(number) AS number, max(at) AS at FROM (
                SELECT `projection` AS kept_by, aggregate AS of, generation, partition AS nth,
                    first - 1 AS number, written_at AS at FROM magnetar.pending
                UNION ALL
                SELECT `projection`, aggregate, generation, partition, number, at FROM magnetar.progress
            ) WHERE startsWith(of, {literal(context + "/")}) GROUP BY kept_by, of, generation, nth
        )
    ) AS progress
    SELECT `projection`, aggregate, toUInt32(min(shown.generation)) AS generation, toUInt16(partition) AS partition,
        toInt64(min(done.number)) AS number, nullIf(min(done.at), toDateTime64(0, 3, 'UTC')) AS as_of,
        dateDiff('millisecond', as_of, now64(3)) / 1000 AS age_seconds, any(kept.kept_by) AS kept_by
    FROM (
        SELECT `projection`, aggregate, kept_by, view, arrayJoin(range(partitions)) AS partition FROM values(
            '`projection` String, aggregate String, kept_by String, view String, partitions UInt32', {", ".join(rows)}
        )
    ) AS kept
    JOIN (
        SELECT name AS view, toUInt32OrZero(extract(as_select, '__g([0-9]+)')) AS generation
        FROM system.tables WHERE database = {literal(context)} AND name IN ({views})
    ) AS shown ON shown.view = kept.view
    LEFT JOIN (
        SELECT done.1 AS kept_by, done.2 AS of, done.3 AS generation, done.4 AS nth, done.5 AS number, done.6 AS at
        FROM (SELECT arrayJoin(progress) AS done)
    ) AS done ON done.kept_by = kept.kept_by AND done.of = concat({literal(context + "/")}, kept.aggregate)
        AND done.generation = shown.generation AND done.nth = kept.partition
    GROUP BY `projection`, aggregate, partition
    """
    text = " ".join(select.split())
    said = "how far each projection is, by aggregate and partition"
    return f"CREATE OR REPLACE VIEW {quoted(context)}.{FRESHNESS} AS {text} COMMENT {literal(said)}"


def standings(
    ask: Ask, position: Position, projection: str | None = None, *, context: str | None = None
) -> list[Standing]:
    """How far the projections are that take commits of the position's partition; or that one, or none if it takes none.

    `context` is whose projections they are, the position's own if it is left away. Raises SettingsError for a position
    of an aggregate or a partition of which nothing is kept there.
    """
    home, aggregate, partition, _ = position.parts()
    context = context or home
    sql = (
        f"SELECT `projection` AS p, toString(number) AS n, age_seconds AS age FROM {_view(position, context)} "
        f"WHERE aggregate = {literal(_name_in(context, position))} AND partition = {partition}"
    )
    try:
        rows = ask(sql)
    except QueryRefused as error:
        if not re.search(r"UNKNOWN_(TABLE|DATABASE)", error.what):
            raise
        rows = []
    if not rows:
        raise SettingsError(
            f"There is no partition {partition} of {aggregate} in the tables of {context!r}: {position} is of another "
            "pipeline, or of another data folder.",
            cure="Take the position from a receipt of this pipeline.",
        )
    found = [Standing(row["p"], int(row["n"]), row["age"]) for row in rows]
    return [each for each in found if projection in {None, each.projection}]


def _name_in(context: str, position: Position) -> str:
    """What the position's aggregate is called in a context's tables."""
    home, aggregate, _, _ = position.parts()
    return aggregate if context == home else f"{home}/{aggregate}"


def contexts_at(ask: Ask, position: Position) -> list[str]:
    """All contexts whose tables here take commits of the position's aggregate; its own one too, if none does."""
    home, aggregate, _, _ = position.parts()
    text = literal(literal(f"{home}/{aggregate}"))
    rows = ask(
        f"SELECT database FROM system.tables WHERE name = {literal(FRESHNESS)} AND (database = {literal(home)} "
        f"OR position(as_select, {text}) > 0) ORDER BY database"
    )
    return [row["database"] for row in rows] or [home]


def everything(ask: Ask, context: str) -> list[dict[str, Any]]:
    """The whole view: projection `p`, aggregate `a`, generation `g`, partition `nth`, number `n`, and `age`."""
    return ask(
        "SELECT `projection` AS p, aggregate AS a, generation AS g, partition AS nth, toString(number) AS n, "
        f"age_seconds AS age FROM {quoted(context)}.{FRESHNESS} ORDER BY p, a, nth"
    )


def _view(position: Position, context: str) -> str:
    try:
        return f"{quoted(context)}.{FRESHNESS}"
    except ValueError:
        raise SettingsError(
            f"{str(position)!r} is not a position.", cure="A position reads context/Aggregate/partition/number."
        ) from None


def behind(ask: Ask, positions: Sequence[Position]) -> TablesBehind | None:
    """How far the one that is furthest behind is from the first position that it lacks, of all projections here.

    One that has come to a position, and keeps an event of that commit in quarantine, lacks it too.
    """
    for position in positions:
        for context in contexts_at(ask, position):
            if (late := behind_in(ask, context, position)) is not None:
                return late
    return None


def behind_in(ask: Ask, context: str, position: Position, projection: str | None = None) -> TablesBehind | None:
    """The same of one context's projections, or of that one, and of one position, which may be another context's."""
    number = position.parts()[3]
    late = [each for each in standings(ask, position, projection, context=context) if each.number < number]
    if late:
        return _error(position, context, min(late, key=lambda each: (each.number, each.projection)))
    return _kept_back(ask, context, position, projection)


def _kept_back(ask: Ask, context: str, position: Position, projection: str | None) -> TablesBehind | None:
    _, aggregate, partition, number = position.parts()
    name = _name_in(context, position)
    held = f"aggregate = {literal(f'{context}/{name}')} AND partition = {partition}"
    which = "" if projection is None else f"AND shown.projection = {literal(projection)}"
    sql = (
        "SELECT shown.projection AS p, held.id AS id, held.event AS event, held.error AS why "
        f"FROM ({open_query(held)}) AS held JOIN {_view(position, context)} AS shown "
        "ON shown.kept_by = held.`projection` AND shown.generation = held.generation "
        f"AND shown.partition = held.partition WHERE held.number = {number} "
        f"AND shown.aggregate = {literal(name)} {which} ORDER BY p LIMIT 1"
    )
    try:
        rows = ask(sql)
    except QueryRefused as error:
        if not re.search(r"UNKNOWN_(TABLE|IDENTIFIER)", error.what):  # a projector of before this was asked
            raise
        rows = []
    if not rows:
        return None
    row = rows[0]
    name = _named(context, position, row["p"])
    return TablesBehind(
        f"{name} does not show {position}: its {row['event']} of {aggregate} {row['id']!r} is kept in quarantine. "
        f"{row['why'] or 'One before it was raised on.'}",
        cure="`magnetar quarantined` lists what is kept back. Mend the projection, and let it in with `retry`.",
        position=position,
        projection=row["p"],
        number=number - 1,
        age_seconds=None,
    )


def _named(context: str, position: Position, projection: str) -> str:
    return projection if position.parts()[0] == context else f"{context}.{projection}"


def _error(position: Position, context: str, standing: Standing) -> TablesBehind:
    name = _named(context, position, standing.projection)
    since = "" if standing.age_seconds is None else f", as of {standing.age_seconds:,.1f} s ago"
    return TablesBehind(
        f"{name} has not come to {position}: it has the commits up to {standing.number}{since}.",
        cure="Wait for longer, or take what is there. If it stays behind, see whether the projector runs: "
        "`magnetar status` says how far each projection is.",
        position=position,
        **standing._asdict(),
    )


def patiently(attempt: Callable[[bool], T], wait_seconds: float) -> Generator[float, None, T]:
    """Try something until it neither finds the tables behind nor ClickHouse away, or the time is over.

    Gives the seconds to wait before it is asked to go on, and returns what the attempt comes to. The attempt is told
    whether it is the last one; what that one raises is raised.
    """
    started, pause = time.monotonic(), PAUSE_SECONDS_MIN
    while True:
        left = started + wait_seconds - time.monotonic()
        try:
            return attempt(left <= 0)
        except (TablesBehind, StoreUnavailable):
            if left <= 0:
                raise
        yield min(pause, left)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)


class Going(NamedTuple):
    """What a step of a patient attempt comes to, if not to its end: wait so long."""

    pause_seconds: float


def step(attempts: Generator[float, None, T]) -> Going | T:
    """One step of `patiently`: how long to wait, or what it comes to."""
    try:
        return Going(next(attempts))
    except StopIteration as ended:
        found: T = ended.value
        return found


def waiting(attempts: Generator[float, None, T]) -> T:
    """All steps of `patiently`, on this thread."""
    while isinstance(found := step(attempts), Going):
        time.sleep(found.pause_seconds)
    return found
