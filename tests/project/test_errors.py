"""Every error has its page, and every page an error."""

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest
from magnetar.pipelines.cli import shared
from magnetar.pipelines.explanations import explanation, fault_line, leaves, retry_line
from magnetar.schemas import MagnetarError

import magnetar

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def sections() -> dict[str, str]:
    """The page's sections that are called like an error."""
    parts = re.split(r"^## (\w+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def below(error: type[MagnetarError]) -> set[str]:
    found = {each.__name__ for each in error.__subclasses__() if each.__module__.startswith("magnetar.")}
    return found.union(*(below(each) for each in error.__subclasses__()))


def test_every_error_can_be_explained() -> None:
    for module in pkgutil.walk_packages(magnetar.__path__, "magnetar."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    assert set(leaves()) == below(MagnetarError)


def test_every_error_has_its_section_and_every_section_its_error() -> None:
    assert list(sections()) == list(leaves())


@pytest.mark.parametrize("name", leaves())
def test_a_section_says_what_the_error_says_of_itself(name: str) -> None:
    error, section = leaves()[name], sections()[name]
    about = inspect.getdoc(error) or ""
    assert "What to do: " in about
    assert about in section
    for line in (fault_line(error), retry_line(error)):
        assert f"- {line}\n" in section
        assert line in explanation(name)


def test_the_page_lists_the_exit_codes_that_there_are() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), flags=re.MULTILINE)}
    constants = {value for name, value in vars(shared).items() if name.startswith("EXIT_") and isinstance(value, int)}
    assert listed == constants | {0, 1}
    assert all(str(code) in shared.EXIT_CODES for code in constants)
