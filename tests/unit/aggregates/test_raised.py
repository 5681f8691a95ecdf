"""What is kept of an error in the domain's code."""

import subprocess
import sys
from pathlib import Path

import pytest
from magnetar.aggregates.raised import DETAIL_MAX, traceback_of, what_was_raised

DOMAIN = {
    "shop/__init__.py": "def first(things):\n    return things[0]\n",
    "shop/rules/prices.py": "import decimal\n\n\ndef price_of(sku):\n    return {'tea': 3}[sku]\n\n\n"
    "def parsed(text):\n    return float(text)\n",
    "shop/rules/__init__.py": "",
    "shop/order.py": "from shop import first\nfrom shop.rules.prices import parsed, price_of\n\nclass Order: ...\n",
}
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from magnetar.aggregates.raised import what_was_raised
from shop import order
for act in (lambda: order.price_of("cup"), lambda: order.parsed("{"), lambda: order.first([]), lambda: 1 / 0):
    try:
        act()
    except Exception as error:
        print(what_was_raised(error, order.Order))
"""


@pytest.mark.parametrize("root", ["here", "there/deeper"])
def test_it_is_the_error_and_the_innermost_line_of_the_package_wherever_that_is_installed(
    tmp_path: Path, root: str
) -> None:
    for name, text in DOMAIN.items():
        file = tmp_path / root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    arguments = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / root)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "KeyError: 'cup' at shop/rules/prices.py:5",
        "ValueError: could not convert string to float: '{' at shop/rules/prices.py:9",
        "IndexError: list index out of range at shop/__init__.py:2",
        "ZeroDivisionError: division by zero",
    ]


class Order:
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def caught(error: Exception) -> Exception:
    with pytest.raises(type(error)) as found:
        raise error
    return found.value


def test_a_long_error_is_cut_and_its_place_is_not() -> None:
    detail = what_was_raised(caught(ValueError("x" * 10_000)), Order)
    assert DETAIL_MAX < len(detail) < DETAIL_MAX + 100
    assert "x at " in detail


def test_an_error_without_a_text_has_its_type() -> None:
    assert what_was_raised(caught(Mute()), Order).startswith("Mute at ")


def test_the_lines_that_led_to_it_do_not_tell_what_it_says() -> None:
    lines = traceback_of(caught(ValueError("4111 1111 1111 1111")))
    assert "in caught" in lines
    assert "raise error" in lines
    assert lines.endswith("\nValueError")
    assert "4111" not in lines
