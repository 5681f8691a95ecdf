"""Commands within a page's text are typed by readers too: the module that they name is one that the page has."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
ELSEWHERE = {"shop", "shop.pipeline", "examples.flights"}
"""The README's module, that of a project that `magnetar new` has made, and the example in a checkout."""
WRONG = {"bad-input.md"}
"""Its commands are those that go wrong."""
COMMAND = re.compile(
    r"`magnetar (?:quarantined|rebuild|diff|fork|status|dev|run|history|parked|copy|doctor) ([a-z_.]+)[ `]"
)


def strangers(page: str) -> set[str]:
    """The modules that commands in the text name, and that a reader of the page does not have."""
    files = {name.replace("/", ".") for name in re.findall(r'title="([^"]+)\.py"', page)}
    return set(COMMAND.findall(page)) - files - ELSEWHERE


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in WRONG], ids=lambda page: page.name)
def test_commands_in_the_text_name_a_module_of_the_page(page: Path) -> None:
    assert strangers(page.read_text()) == set()


def test_a_module_that_the_page_has_not_is_found() -> None:
    page = '```python title="parcels.py"\n```\nThen `magnetar quarantined post retry --all`, or `magnetar dev parcels`.'
    assert strangers(page) == {"post"}
