"""A query's answer as a plot in the terminal: bars for some rows, a line for many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, TypeAlias

from magnetar.schemas import SettingsError
from rich.cells import cell_len, set_cell_size

BARS_MAX: Final = 40
"""More rows than this are a line."""

LINE_ROWS: Final = 12
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""By row and column within a character of Unicode's block Braille Patterns, the bit of a dot."""

Point: TypeAlias = tuple[float, float]


def plot(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> list[str]:
    """The lines of the plot, `width` cells wide at most; the first column is x, the second y.

    Up to 40 rows are bars, one a row, in their order; a NULL has none. More are a line: then x has to be
    a number, a date or a time, and the rows are sorted by it. Raises SettingsError for an answer of another shape.
    """
    if len(columns) != 2:
        raise SettingsError(
            f"A plot has two columns, and the answer has {len(columns)}: {', '.join(columns)}.",
            cure="Select x first, and a number second.",
        )
    for row in rows:
        if row[1] is not None and (isinstance(row[1], bool) or not isinstance(row[1], int | float)):
            raise SettingsError(
                f"{columns[1]} is {row[1]!r}, and a plot's second column is a number.", cure="Count it."
            )
    drawn = _bars(rows, width) if len(rows) <= BARS_MAX else _line(columns, rows, width)
    return [f"{columns[1]} by {columns[0]}, {len(rows):,} row{'s' * (len(rows) != 1)}", *drawn]


def _bars(rows: Sequence[Sequence[Any]], width: int) -> Iterator[str]:
    labels = ["NULL" if row[0] is None else " ".join(str(row[0]).split()) for row in rows]
    values = [_number(row[1]) for row in rows]
    left = min(max(map(cell_len, labels), default=0), max(4, width // 3))
    room = max(8, width - left - max(map(len, values), default=0) - 2)
    numbers = [row[1] or 0 for row in rows]
    low, high = min([0, *numbers]), max([0, *numbers])
    zero = round(room * -low / (high - low)) if high > low else 0
    for label, number, value in zip(labels, numbers, values, strict=True):
        eighths = round(8 * room * abs(number) / (high - low)) if high > low else 0
        if number < 0:
            bar = " " * (zero - min(zero, round(eighths / 8))) + "█" * min(zero, round(eighths / 8))
        else:
            eighths = min(eighths, 8 * (room - zero))
            bar = " " * zero + "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        shown = label if cell_len(label) <= left else set_cell_size(label, left - 1) + "…"
        yield f"{set_cell_size(shown, left)} {bar} {value}".rstrip()


def _line(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> Iterator[str]:
    points = sorted((_place(columns[0], row[0]), float(row[1])) for row in rows if None not in row)
    if not points:
        return
    ys = [y for _, y in points]
    top, bottom = _number(max(ys)), _number(min(ys))
    left = max(len(top), len(bottom))
    room = max(8, width - left - 2)
    for n, text in enumerate(_canvas(points, room, LINE_ROWS)):
        label = top if n == 0 else bottom if n == LINE_ROWS - 1 else ""
        yield f"{label:>{left}} ┤{text}".rstrip()
    ends = sorted((row[0] for row in rows if None not in row), key=lambda x: _place(columns[0], x))
    first, last = (x if isinstance(x, str) else _number(x) for x in (ends[0], ends[-1]))
    yield f"{'':{left}}  {first}{last:>{max(1, room - len(first))}}"


def _canvas(points: Sequence[Point], columns: int, rows: int) -> list[str]:
    """The points joined by lines, in dots of Braille: two beside and four above each other in a character."""
    (x_low, _), (x_high, _) = points[0], points[-1]
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    right, bottom = 2 * columns - 1, 4 * rows - 1
    cells = [[0] * columns for _ in range(rows)]

    def dot(point: Point) -> tuple[int, int]:
        x = right * (point[0] - x_low) / (x_high - x_low) if x_high > x_low else 0
        y = bottom * (y_high - point[1]) / (y_high - y_low) if y_high > y_low else bottom
        return round(x), round(y)

    for one, other in pairwise([points[0], *points]):
        (x1, y1), (x2, y2) = dot(one), dot(other)
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for n in range(steps + 1):
            x, y = round(x1 + (x2 - x1) * n / steps), round(y1 + (y2 - y1) * n / steps)
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in line) for line in cells]


def _place(column: str, x: Any) -> float:
    """Where x stands on its axis."""
    if isinstance(x, int | float):
        return float(x)
    with suppress(ValueError, TypeError):
        return datetime.fromisoformat(x).timestamp()
    raise SettingsError(
        f"{column} is {x!r}, and more than {BARS_MAX} rows are plotted over numbers, dates or times.",
        cure=f"LIMIT {BARS_MAX} gives bars.",
    )


def _number(value: float | None) -> str:
    """A number in a few digits."""
    return "NULL" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
