"""The README's code runs as it stands there."""

import shlex
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Shell
from tests.e2e.readme import console_steps, write_shop


def test_the_first_pipeline_is_under_sixty_lines(tmp_path: Path) -> None:
    shop, *_ = write_shop(tmp_path)
    assert len(shop.splitlines()) < 60


def test_the_first_tests_pass(tmp_path: Path) -> None:
    write_shop(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_the_session_in_the_readme_is_what_is_printed(shell: Shell) -> None:
    write_shop(shell.folder)
    shell.start("dev", "shop")
    steps = console_steps()
    assert len(steps) == 4
    shell.eventually(lambda: "Ctrl-C stops it" in (shell.folder / "dev.log").read_text(), "magnetar dev is up")
    for command, output in steps[:3]:
        ran = shell.run(*shlex.split(command))
        assert ran.stdout == output, ran.stderr
    command, output = steps[3]
    shell.eventually(lambda: shell.run(*shlex.split(command)).stdout == output, f"{command} prints {output}")
    ran_script = subprocess.run(
        [sys.executable, "talk.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran_script.stdout.startswith("Bought(sku='cup', pieces=6) shop/Order/"), ran_script.stderr
