"""The pages of recordings show what the commands show now."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.reading import difference, said

SECONDS_MAX = 900
"""With the machine to itself, a page takes a tenth of that."""

_UNSURE = ((r"127\.0\.0\.1:\d+", "<port>"), (r"\d:\d\d:\d\d|-:--:--", "<duration>"), (r"\d[\d,]*\.\d+", "<number>"))


def compared(page: str) -> str:
    """The page without what is another one each time."""
    page = said(page)
    for pattern, name in _UNSURE:
        page = re.sub(pattern, name, page)
    return page


@pytest.mark.parametrize(("module", "name"), [("record", "recordings"), ("record_change", "changing")])
def test_the_recordings_are_of_today(tmp_path: Path, module: str, name: str) -> None:
    played = tmp_path / "played.md"
    record = [sys.executable, "-m", f"tools.{module}", str(played)]
    ran = subprocess.run(record, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    page, now = (ROOT / "docs" / f"{name}.md").read_text(), played.read_text()
    assert compared(now) == compared(page), difference(f"docs/{name}.md (mend it: make recordings)", now, page)


def test_only_what_differs_each_time_may_differ() -> None:
    assert compared("url=http://127.0.0.1:1/ in 0:00:01") == compared("url=http://127.0.0.1:65000/ in -:--:--")
    assert compared("2 commits") != compared("3 commits")
