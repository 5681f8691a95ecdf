"""A query's answer drawn in the terminal."""

from datetime import date, timedelta

import pytest
from magnetar.pipelines.plot import BARS_MAX, LINE_ROWS, plot
from magnetar.schemas import SettingsError
from rich.cells import cell_len


def test_a_few_rows_are_bars_as_long_as_their_numbers() -> None:
    assert plot(["sku", "sold"], [("tea", 40), ("cup", 10), ("pot", 0), ("jar", None)], 29) == [
        "sold by sku, 4 rows",
        "tea ████████████████████ 40",
        "cup █████ 10",
        "pot  0",
        "jar  NULL",
    ]


def test_an_eighth_of_a_character_is_drawn() -> None:
    assert plot(["x", "y"], [(1, 1000), (2, 1)], 110)[2] == "2 ▏ 1"


def test_numbers_below_zero_stand_left_of_the_others() -> None:
    assert plot(["x", "y"], [("a", 10), ("b", -10)], 16) == ["y by x, 2 rows", "a      █████ 10", "b █████ -10"]


def test_nothing_is_wider_than_the_terminal() -> None:
    rows = [("a very long name of an article, 長い名前の商品", 123_456_789 * n) for n in range(1, 30)]
    for width in (40, 60, 200):
        lines = plot(["article", "sold"], rows, width)
        assert max(map(cell_len, lines)) <= width
        assert max(map(cell_len, lines)) > width - 3
    assert "…" in plot(["article", "sold"], rows, 40)[1]


def test_many_rows_are_a_line_with_its_ends_named() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(100)]
    lines = plot(["day", "n"], [(str(day), n * 10) for n, day in enumerate(days)], 60)
    assert len(lines) == LINE_ROWS + 2
    assert lines[0] == "n by day, 100 rows"
    assert lines[1].startswith("990 ┤")
    assert lines[LINE_ROWS].startswith("  0 ┤")
    assert lines[-1].split() == ["2026-01-01", "2026-04-10"]
    assert max(map(cell_len, lines)) <= 60


def test_a_line_is_the_same_whatever_the_order_of_its_rows() -> None:
    rows = [(n, (n - 50) ** 2) for n in range(100)]
    assert plot(["x", "y"], rows, 80) == plot(["x", "y"], rows[::-1], 80)


@pytest.mark.parametrize("count", [1, BARS_MAX, BARS_MAX + 1])
@pytest.mark.parametrize("y", [0, 7, -7, 1.5])
def test_rows_that_are_all_the_same_are_drawn(count: int, y: float) -> None:
    assert len(plot(["x", "y"], [(n, y) for n in range(count)], 80)) in {count + 1, LINE_ROWS + 2}


@pytest.mark.parametrize(
    ("columns", "rows", "words"),
    [
        (["a"], [(1,)], "has two columns, and the answer has 1: a"),
        (["a", "b", "c"], [(1, 2, 3)], "has two columns, and the answer has 3: a, b, c"),
        (["a", "b"], [(1, "x")], "b is 'x', and a plot's second column is a number"),
        (["a", "b"], [(1, True)], "b is True"),
        (["a", "b"], [(f"n{n}", n) for n in range(BARS_MAX + 1)], "a is 'n0', and more than 40 rows"),
    ],
    ids=["one", "three", "text", "bool", "names"],
)
def test_an_answer_of_another_shape_is_refused(columns: list[str], rows: list[tuple], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        plot(columns, rows, 80)


def test_no_rows_are_no_lines() -> None:
    assert plot(["x", "y"], [], 80) == ["y by x, 0 rows"]
