"""Answers that are text, where a String column holds bytes that are none.

ClickHouse's String is any bytes, and it writes them as they are into most formats. Its own setting for that
(`output_format_json_validate_utf8`) may not be set by a user of a server who may only read.
"""

from __future__ import annotations

from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

LEGIBLE_TABLE: Final = "PrettyCompactNoEscapes"

_CONTROLS: Final = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n")}, REPLACEMENT)
"""What a terminal would obey."""


def legible(answer: bytes, clickhouse_format: str) -> bytes:
    """The answer with U+FFFD for what is no UTF-8 in JSON, as ClickHouse itself does it in its format `JSON`; in a
    table, which is for people, also for control characters. Any other format is left as it is."""
    if clickhouse_format == LEGIBLE_TABLE:
        return answer.decode(errors="replace").translate(_CONTROLS).encode()
    if clickhouse_format.startswith("JSON"):
        return answer.decode(errors="replace").encode()
    return answer
