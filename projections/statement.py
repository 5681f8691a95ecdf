"""What may be asked of the embedded engine: one statement that reads its tables, and nothing else.

The engine's `readonly = 1` refuses what writes, and table functions that read files or reach hosts. It lets through
`INTO OUTFILE`, `KILL QUERY`, several statements at once, and the function `file`. They are found here in the text that
the engine's own parser makes of a statement, in which keywords, quotes and comments have one form; and that text, not
the asker's, is what runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from magnetar.schemas import QueryRefused

CODES: Final = {
    "BAD_ARGUMENTS": 36,
    "NOT_IMPLEMENTED": 48,
    "UNKNOWN_DATABASE": 81,
    "TIMEOUT_EXCEEDED": 159,
    "READONLY": 164,
    "TOO_MANY_SIMULTANEOUS_QUERIES": 202,
    "QUERY_IS_TOO_LARGE": 223,
    "QUERY_WAS_CANCELLED": 394,
    "AUTHENTICATION_FAILED": 516,
}
"""ClickHouse's codes for what is refused before the engine sees it."""

DENIED_NAMES: Final = """
    SELECT name FROM system.table_functions WHERE NOT allow_readonly AND name != 'format'
    UNION DISTINCT SELECT name FROM system.functions WHERE categories LIKE '%AI%'
    UNION DISTINCT SELECT arrayJoin(['file', 'eval', 'cluster', 'clusterAllReplicas'])"""
"""The functions that no question may name, as the engine lists them; `format` is also a harmless one on strings."""

_READING: Final = re.compile(r"(SELECT|WITH|SHOW|DESCRIBE|EXISTS)\b|\(|EXPLAIN [\w =,]*\b(SELECT|WITH)\b")
_SELECT: Final = re.compile(r"(SELECT|WITH)\b|\(")
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|`((?:[^`\\]|\\.)*)`", re.DOTALL)
_FORMAT: Final = re.compile(r" FORMAT (\w+)$")
_SETTINGS_TABLE: Final = re.compile(r"SELECT [\w, *]+ FROM system\.settings( LIMIT \d+)?")


class Statement(NamedTuple):
    """A statement that may run."""

    text: str
    format: str | None
    """The format that it asks for itself; it no longer stands in the text."""
    is_select: bool
    asks_for_settings: bool
    """Whether a client reads which settings it may send: under `readonly = 1` the engine says none."""


def checked(text: str, parameters: Mapping[str, str], denied: AbstractSet[str]) -> Statement:
    """Judge one statement, as the engine's parser has written it out.

    Raises QueryRefused with ClickHouse's code 164.
    """
    found = _FORMAT.search(text)
    body = text[: found.start()] if found else text
    bare = _QUOTED.sub(_without_quotes, body)
    if not _READING.match(bare):
        raise refused(f"{bare.split(' ', 1)[0]} is not a statement that reads.")
    if " INTO OUTFILE " in bare:
        raise refused("INTO OUTFILE would write a file.")
    _refuse_functions(bare, denied)
    _refuse_identifiers(body, bare, parameters, denied)
    is_select = _SELECT.match(bare) is not None
    return Statement(body, found and found[1], is_select, _SETTINGS_TABLE.fullmatch(body) is not None)


def refused(what: str) -> QueryRefused:
    """The error for what would do more than read."""
    return clickhouse_error("READONLY", what)


def clickhouse_error(name: str, what: str) -> QueryRefused:
    """An error of ours in the words of ClickHouse, whose clients read its code."""
    code = CODES[name]
    return QueryRefused(f"Code: {code}. DB::Exception: {what} ({name})", code=code)


def is_answer(what: str) -> bool:
    """Whether an error is ClickHouse's own, by the code that each has. One of the way there has none."""
    return re.search(r"Code: \d+\.", what) is not None


def is_passing(what: str) -> bool:
    """Whether an error says, by its code, that the engine is being closed or has no time: the next try may succeed."""
    codes = (CODES["TOO_MANY_SIMULTANEOUS_QUERIES"], CODES["QUERY_WAS_CANCELLED"])
    return any(f"Code: {code}." in what for code in codes)


def _without_quotes(quoted: re.Match[str]) -> str:
    """A literal says nothing; a quoted name says its name, if that could be a function's."""
    name = quoted[1]
    if name is None:
        return "''"
    return name if re.fullmatch(r"\w+", name) else "_"


def _refuse_functions(bare: str, denied: AbstractSet[str]) -> None:
    for word in re.finditer(r"(?<![\w.])[A-Za-z]\w*(?![\w.])", bare):
        if word[0] in denied and _could_be_a_function(bare, word):
            raise refused(
                f"{word[0]} could read a file or reach a host. If it is a column, name its table too: t.{word[0]}."
            )


def _could_be_a_function(bare: str, word: re.Match[str]) -> bool:
    """Whether it is called, applied, or handed to a function: `file(x)`, `APPLY file`, `arrayMap(file, x)`."""
    before, after = bare[: word.start()].rstrip(), bare[word.end() :].lstrip()
    is_within = before.count("(") > before.count(")")
    return after.startswith("(") or before.endswith("APPLY") or (is_within and before.endswith(("(", ",")))


def _refuse_identifiers(body: str, bare: str, parameters: Mapping[str, str], denied: AbstractSet[str]) -> None:
    """Names that come as parameters can be functions; the database `default` takes the name of a table for a file's."""
    names = [parameters.get(name, "") for name in re.findall(r"\{(\w+):Identifier\}", bare)]
    if any(name.strip("` ") in denied for name in names):
        raise refused("A parameter names a function that could read a file or reach a host.")
    odd = any(quoted[1] and not re.fullmatch(r"\w+", quoted[1]) for quoted in _QUOTED.finditer(body))
    if (names or odd) and not _SELECT.match(bare):
        raise refused("Outside of SELECT, names are not parameters, and hold letters, digits and underscores alone.")
