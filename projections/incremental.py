"""An incremental Sql, taken apart: what is kept of each range of events, and what the view makes of it.

The query is not written anew. Its text is cut where its clauses and its aggregates begin and end, so that each
expression stays as its author has written it: `sum(pieces)` is kept as `sumState(pieces)`, and shown as `sumMerge` of
what was kept.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from magnetar.schemas import DeclarationError

from .columns import quoted

if TYPE_CHECKING:
    from sqlglot import exp

MERGEABLE: Final = {
    name.lower(): name
    for name in (
        *("count", "sum", "avg", "min", "max", "uniqExact", "sumWithOverflow"),
        *("varPop", "varSamp", "stddevPop", "stddevSamp", "covarPop", "covarSamp", "corr"),
        *("groupBitAnd", "groupBitOr", "groupBitXor"),
    )
}
"""The aggregates that come to the same however the rows are cut into ranges; of floats, but for rounding."""

_ORDER: Final = "which of the rows it takes depends on their order"
_SAMPLE: Final = "it looks at a sample, which is another one when the rows come in other pieces"
_WHY: Final = (
    (re.compile(r"(any|first_value|last_value|arg(min|max)|single_?value)", re.IGNORECASE), _ORDER),
    (re.compile(r"(group(array|uniqarray|concat)|topk|array_agg)", re.IGNORECASE), _ORDER),
    (re.compile(r"(quantile|median|uniq|approx)", re.IGNORECASE), _SAMPLE),
)
"""Why an aggregate is refused, by the beginning of its name."""

_COMBINATORS: Final = re.compile(
    r"(If|OrNull|OrDefault|Array|Map|ForEach|Distinct|State|Merge|ArgMin|ArgMax|Resample)$"
)
_CLAUSES: Final = ("SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY")
_CURES: Final = {
    "joins": "Carry the field in the event when it is decided, or keep a Fold for it; or leave `incremental` away.",
    "distinct": "Group by the columns instead.",
    "limit": "Leave it away, and limit in the query that reads the projection.",
    "with_": "Write it out in the query.",
}
_LEAVE: Final = "Leave it away; or leave `incremental` away: a plain view may have it."


class Key(NamedTuple):
    """A column that the query groups by."""

    name: str
    expression: str


class State(NamedTuple):
    """An aggregate that is kept: its column, its function, and what stands in the call."""

    column: str
    function: str
    arguments: str


class Plan(NamedTuple):
    """A query taken apart. All texts are its author's."""

    database: str | None
    event: str
    alias: str
    """What the query calls the event's rows."""
    keys: tuple[Key, ...]
    states: tuple[State, ...]
    where: str
    items: tuple[str, ...]
    """What the view selects: aggregates are merged, and keys are named."""
    rest: str
    """HAVING and ORDER BY of the view."""
    called: frozenset[str]
    """The functions that the query calls."""
    around: tuple[str, str]
    """The query before and after the table that it reads."""

    def plain(self, source: str) -> str:
        """The query itself, over the rows of another one."""
        before, after = self.around
        return f"{before} ({source}) AS {self.alias}{after}"

    def kept(self, source: str, *, guard: str = "1") -> str:
        """The query that gives the rows to be kept of some events. `source` has the columns of the event's view."""
        keys = [f"{key.expression} AS {quoted(key.name)}" for key in self.keys]
        states = [f"{state.function}State({state.arguments}) AS {state.column}" for state in self.states]
        group = f" GROUP BY {', '.join(quoted(key.name) for key in self.keys)}" if self.keys else ""
        known = [f"max({LAST_SOURCE}) AS {LAST}", f"count() AS {EVENTS}"]
        # One block, whatever there is: an insert is atomic per block.
        return (
            f"SELECT {', '.join([*keys, *states, *known])} FROM ({source}) AS {self.alias} "
            f"WHERE ({self.where}) AND {guard}{group} "
            "SETTINGS group_by_two_level_threshold = 0, group_by_two_level_threshold_bytes = 0"
        )

    @property
    def fingerprint(self) -> str:
        """What differs as soon as a table that another query has filled is of no use any more."""
        return sha256(self.kept("").encode()).hexdigest()[:16]

    def shown(self, table: str) -> str:
        """The query of the view over a table of what was kept."""
        group = f" GROUP BY {', '.join(quoted(key.name) for key in self.keys)}" if self.keys else ""
        return f"SELECT {', '.join(self.items)} FROM {table}{group}{self.rest}"


LAST: Final = "_last"
"""The column with the number of the last commit that a row is of: a range is in the table if there is one of it."""

EVENTS: Final = "_events"
"""The column with the number of events that a row is of."""

LAST_SOURCE: Final = "_number"


class Token(Protocol):
    """What is needed of `sqlglot`'s tokens."""

    text: str
    start: int
    end: int


_FROM: Final = re.compile(r"\bFROM\s+(?:`?(\w+)`?\s*\.\s*)?`?(\w+)`?", re.IGNORECASE)


def read_by(select: str) -> tuple[str | None, str]:
    """The database, if it is named, and the table that a query reads: what a declaration has to know.

    All else is looked at by `plan_of`, when a projector starts: taking a query apart needs an engine of its own.
    """
    found = _FROM.search(re.sub(r"'(?:[^'\\]|\\.)*'|--[^\n]*", "", select))
    return (found[1], found[2]) if found else (None, "")


def plan_of(name: str, select: str) -> Plan:
    """Take the query of the projection `name` apart.

    Raises DeclarationError for one that cannot be kept incrementally, with the cure.
    """
    select = inspect.cleandoc(select).strip().rstrip(";").rstrip()
    tree = _parsed(name, select)
    _refuse_clauses(name, tree)
    text = _Text(select)
    clauses = text.clauses()
    items = [_Item(text, *span) for span in text.parted(*clauses["SELECT"])]
    for item in items:
        if item.name is None:
            raise _refused(name, f"{item.text!r} has no name", f"Name it: {item.text} AS …, as the class's field.")
    keys = _keys(name, text, items, clauses.get("GROUP BY"))
    states: dict[tuple[str, str], State] = {}
    if not keys and not any(text.calls(item.start, item.end) for item in items):
        raise _refused(name, "nothing is aggregated", "Leave `incremental` away, or write a Rows.")
    shown = [_shown(name, text, item, keys, states) for item in items]
    rest = "".join(
        f" {clause} {_merged(name, text, *clauses[clause], states)}"
        for clause in ("HAVING", "ORDER BY")
        if clause in clauses
    )
    database, event, alias = _table(name, tree)
    return Plan(
        database,
        event,
        quoted(alias),
        tuple(keys),
        tuple(states.values()),
        text.cut(*clauses["WHERE"]) if "WHERE" in clauses else "1",
        tuple(shown),
        rest,
        frozenset(text.called()),
        text.around(*clauses["FROM"]),
    )


def refuse_functions(name: str, plan: Plan, aggregates: AbstractSet[str], changing: AbstractSet[str]) -> None:
    """Raise DeclarationError for what the engine says is an aggregate and we do not know, or gives another value at
    another time. Both sets are of names in lower case."""
    for called in sorted(plan.called):
        if not _mergeable(called) and any(base.lower() in aggregates for base in _bases(called)):
            raise _refused_aggregate(name, called)
        if called.lower() in changing:
            raise _refused(name, f"{called} gives another value when it is asked later", _LEAVE)


# --- what is refused --------------------------------------------------------------------------------------------------


def _refused(name: str, what: str, cure: str) -> DeclarationError:
    return DeclarationError(f"{name} cannot be kept incrementally: {what}.", cure=cure)


def _refused_aggregate(name: str, called: str) -> DeclarationError:
    why = next((why for pattern, why in _WHY if pattern.match(called)), "nothing is known of how it is merged")
    return _refused(
        name,
        f"{called} may give another value than over all rows at once, because {why}",
        f"Use one of {', '.join(MERGEABLE.values())}, with -If or without; or leave `incremental` away.",
    )


def _parsed(name: str, select: str) -> exp.Expr:
    import sqlglot  # needed by who has an incremental projection alone
    from sqlglot.errors import SqlglotError

    try:
        found = sqlglot.parse(select, read="clickhouse")
    except SqlglotError as error:
        first = str(error).splitlines()[0] if str(error) else "it cannot be parsed"
        raise _refused(name, f"its query cannot be taken apart ({first})", "Write it more plainly.") from error
    if len(found) != 1 or found[0] is None:
        raise _refused(name, "its query is not one statement", "Write one SELECT.")
    return found[0]


def _refuse_clauses(name: str, tree: Any) -> None:
    from sqlglot import exp

    if not isinstance(tree, exp.Select):
        raise _refused(name, "its query is no single SELECT", _CURES["joins"])
    allowed = {"expressions", "from_", "where", "group", "having", "order"}
    for clause, value in tree.args.items():
        if value and clause not in allowed:
            said = {"joins": "a join", "with_": "WITH", "limit": "LIMIT"}.get(clause, clause.strip("_").upper())
            raise _refused(name, f"it has {said}", _CURES.get(clause, _LEAVE))
    group = tree.args.get("group")
    if group is not None and any(value for key, value in group.args.items() if key != "expressions"):
        raise _refused(name, "it has GROUP BY ALL, WITH TOTALS, ROLLUP or CUBE", "Group by the columns themselves.")
    for kind, said, cure in (
        (exp.Window, "a window function", _LEAVE),
        (exp.Distinct, "DISTINCT", "Count with uniqExact(…), or group by the column."),
        (exp.Subquery, "a subquery", _CURES["joins"]),
    ):
        if tree.find(kind):
            raise _refused(name, f"it has {said}", cure)
    if any(each is not tree for each in tree.find_all(exp.Select)):
        raise _refused(name, "it has a subquery", _CURES["joins"])


def _table(name: str, tree: Any) -> tuple[str | None, str, str]:
    from sqlglot import exp

    table = tree.args["from_"].this if tree.args.get("from_") else None
    plain = isinstance(table, exp.Table) and isinstance(table.this, exp.Identifier)
    extra = {} if table is None else {key for key, value in table.args.items() if value} - {"this", "db", "alias"}
    if not plain or table is None or extra:
        raise _refused(name, "it does not read the rows of one event", "Write FROM and the event's name, and no more.")
    return table.db or None, table.name, table.alias or table.name


# --- the text ---------------------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """A call of an aggregate, by its tokens: its name, and the parentheses."""

    name: str
    start: int
    open: int
    close: int


class _Text:
    """A statement's text with its tokens. Spans are of tokens, without their ends."""

    def __init__(self, select: str) -> None:
        from sqlglot.dialects.clickhouse import ClickHouse

        self.select = select
        self.tokens: Sequence[Token] = ClickHouse().tokenize(select)
        self.depths: list[int] = []
        depth = 0
        for token in self.tokens:
            depth -= token.text in {")", "]", "}"} and self._is_sign(token)
            self.depths.append(depth)
            depth += token.text in {"(", "[", "{"} and self._is_sign(token)

    def _is_sign(self, token: Token) -> bool:
        """Whether it stands in the text as it is: a string with a bracket in it does not."""
        return self.select[token.start : token.end + 1] == token.text

    def cut(self, start: int, end: int) -> str:
        """The text of some tokens, with all that stands between them."""
        return self.select[self.tokens[start].start : self.tokens[end - 1].end + 1]

    def clauses(self) -> dict[str, tuple[int, int]]:
        """By its keyword, the tokens of each clause."""
        starts = [
            (nth, " ".join(token.text.upper().split()))
            for nth, token in enumerate(self.tokens)
            if self.depths[nth] == 0 and " ".join(token.text.upper().split()) in _CLAUSES
        ]
        starts = [(nth, word) for nth, word in starts if self._is_word(nth)]
        ends = [nth for nth, _ in starts[1:]] + [len(self.tokens)]
        return {word: (nth + 1, end) for (nth, word), end in zip(starts, ends, strict=True)}

    def around(self, start: int, end: int) -> tuple[str, str]:
        """What stands before and after a span."""
        return self.select[: self.tokens[start].start], self.select[self.tokens[end - 1].end + 1 :]

    def _is_word(self, nth: int) -> bool:
        return self.select[self.tokens[nth].start] not in "'`\""

    def parted(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts between the commas."""
        begin = start
        for nth in range(start, end):
            if self.tokens[nth].text == "," and self._is_sign(self.tokens[nth]) and self.depths[nth] == 0:
                yield begin, nth
                begin = nth + 1
        yield begin, end

    def called(self) -> Iterator[str]:
        """The names that stand before a parenthesis."""
        for nth, token in enumerate(self.tokens[:-1]):
            if self._is_word(nth) and re.fullmatch(r"\w+", token.text) and self.opens(nth + 1):
                yield token.text

    def opens(self, nth: int) -> bool:
        return nth < len(self.tokens) and self.tokens[nth].text == "(" and self._is_sign(self.tokens[nth])

    def calls(self, start: int, end: int) -> list[_Call]:
        """The calls of aggregates within a span, the outer ones."""
        found: list[_Call] = []
        nth = start
        while nth < end:
            token = self.tokens[nth]
            if self._is_word(nth) and _mergeable(token.text) and self.opens(nth + 1):
                depth = self.depths[nth + 1]
                close = next(i for i in range(nth + 2, len(self.tokens)) if self.depths[i] == depth)
                found.append(_Call(token.text, nth, nth + 1, close))
                nth = close
            nth += 1
        return found

    def said(self, start: int, end: int) -> str:
        """The tokens, however they are laid out: what is equal means the same."""
        return " ".join(self.select[t.start : t.end + 1] for t in self.tokens[start:end])


class _Item:
    """One column of the query: its expression, and its name if it has one."""

    def __init__(self, text: _Text, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.text = text.cut(start, end)
        self.name: str | None = None
        words = text.tokens[start:end]
        if len(words) >= 3 and words[-2].text.upper() == "AS" and text.depths[end - 2] == 0:
            self.name, self.end = words[-1].text, end - 2
        elif len(words) in {1, 3} and re.fullmatch(r"[A-Za-z_]\w*", words[-1].text):
            self.name = words[-1].text if len(words) == 1 or words[1].text == "." else None
        self.said = text.said(start, self.end)


def _keys(name: str, text: _Text, items: Sequence[_Item], span: tuple[int, int] | None) -> list[Key]:
    found = []
    for start, end in text.parted(*span) if span else ():
        said, words = text.said(start, end), text.tokens[start:end]
        item = next((each for each in items if len(words) == 1 and each.name == words[0].text), None)
        item = item or next((each for each in items if each.said == said), None)
        if item is None and said.isdecimal() and 0 < int(said) <= len(items):
            item = items[int(said) - 1]
        if item is not None and item.name is not None:
            found.append(Key(item.name, text.cut(item.start, item.end)))
        elif len(words) == 1 and re.fullmatch(r"[A-Za-z_]\w*", words[0].text):
            found.append(Key(words[0].text, said))
        else:
            raise _refused(
                name, f"it groups by {said}, which has no name", f"Select it: {said} AS …, and group by that."
            )
    return found


def _shown(name: str, text: _Text, item: _Item, keys: Sequence[Key], states: dict[tuple[str, str], State]) -> str:
    """An item as the view selects it."""
    if any(key.name == item.name for key in keys):
        return quoted(str(item.name))
    return f"{_merged(name, text, item.start, item.end, states)} AS {quoted(str(item.name))}"


def _merged(name: str, text: _Text, start: int, end: int, states: dict[tuple[str, str], State]) -> str:
    """A span in which each aggregate is what was kept of it, merged; notes what is to be kept."""
    made, at = "", text.tokens[start].start
    for call in text.calls(start, end):
        function = _mergeable(call.name)
        if text.opens(call.close + 1):
            raise _refused_aggregate(name, call.name)
        arguments = text.cut(call.open + 1, call.close) if call.close > call.open + 1 else ""
        arguments = "" if (function, arguments) == ("count", "*") else arguments
        state = states.setdefault((function, arguments), State(f"_s{len(states)}", function, arguments))
        made += text.select[at : text.tokens[call.start].start] + f"{state.function}Merge({state.column})"
        at = text.tokens[call.close].end + 1
    return made + text.select[at : text.tokens[end - 1].end + 1]


def _mergeable(called: str) -> str:
    """The function that is kept, as ClickHouse writes it; empty if it is none of ours."""
    base, suffix = (called[:-2], "If") if called.endswith("If") else (called, "")
    known = MERGEABLE.get(base.lower(), "")
    is_spelled = known == base or (known in {"count", "sum", "avg", "min", "max"} and not suffix)
    return known + suffix if known and is_spelled else ""


def _bases(called: str) -> Iterator[str]:
    """The name, and what it is without the combinators behind it: `anyIf` is `any` as well."""
    yield called
    while (found := _COMBINATORS.search(called)) and found.start() > 0:
        called = called[: found.start()]
        yield called
