"""The README's pipeline, for tests of the command line."""

from pathlib import Path

from tests.docs.pages import ROOT, files


def write_shop(folder: Path) -> None:
    """Write `shop.py` and its tests as the README says."""
    for name, text in files(ROOT / "README.md").items():
        (folder / name).write_text(text)
