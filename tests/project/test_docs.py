"""The docs say what there is."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2]


def test_links_between_the_docs_lead_somewhere() -> None:
    for page in [DOCS / "README.md", *(DOCS / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
