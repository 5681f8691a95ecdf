"""The code in docs/client.md runs as it stands there, and prints what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.readme import write_shop

TEXT = (ROOT / "docs" / "client.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", TEXT, re.MULTILINE | re.DOTALL)
SCRIPTS = [(code, output) for code, output in BLOCKS if output]
FILES = [code for code, output in BLOCKS if not output]
RUN = """
import sys
import structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
sys.path.insert(0, ".")
from shop import shop
with shop.embedded():
    exec(compile(sys.stdin.read(), "docs/client.md", "exec"), {"__name__": "__main__"})
"""


def run(folder: Path, *arguments: str, given: str | None = None) -> str:
    """What a Python process prints, in the folder with `shop.py`."""
    write_shop(folder)
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, input=given, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_all_blocks_are_run() -> None:
    assert (len(SCRIPTS), len(FILES)) == (4, 2)


@pytest.mark.parametrize(("code", "output"), SCRIPTS, ids=range(len(SCRIPTS)))
def test_a_script_prints_what_stands_below_it(tmp_path: Path, code: str, output: str) -> None:
    assert run(tmp_path, "-c", RUN, given=code) == output


def test_the_application_and_its_tests_work(tmp_path: Path) -> None:
    application, tests = FILES
    (tmp_path / "api.py").write_text(application)
    (tmp_path / "test_api.py").write_text(tests)
    assert "2 passed" in run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_api.py")
