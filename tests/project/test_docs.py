"""The docs say what there is."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
NAVIGATION = (ROOT / "mkdocs.yml").read_text()


def test_links_between_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def in_the_navigation() -> list[Path]:
    """All pages but the decisions: tools/site.py lists those."""
    return [page for page in PAGES if page.parent.name != "adr" or page.name == "README.md"]


@pytest.mark.parametrize("page", in_the_navigation(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_is_in_the_navigation(page: Path) -> None:
    name = page.relative_to(ROOT / "docs") if (ROOT / "docs") in page.parents else Path("project") / page.name
    assert f": {name}\n" in NAVIGATION, "give it a place in mkdocs.yml"


@pytest.mark.parametrize("door", ["magnetar", "magnetar.testing"])
def test_the_reference_has_every_public_name(door: str) -> None:
    described = re.findall(
        r"^::: magnetar[\w.]*\.(\w+)$", (ROOT / "docs/reference/python.md").read_text(), re.MULTILINE
    )
    assert sorted(set(import_module(door).__all__) - set(described)) == [], "add them to docs/reference/python.md"


def test_the_version_is_the_newest_one_of_the_changes() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    first, *released = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "Unreleased"
    assert not released or released[0] == version
