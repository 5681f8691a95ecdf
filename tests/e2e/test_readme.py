"""The README's code runs as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Shell

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def console_steps() -> list[tuple[str, str]]:
    """Each `$ magnetar …` line of the README's console blocks, with the output that stands below it."""
    steps: list[tuple[str, str]] = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith("magnetar "):
                steps.append((command.removeprefix("magnetar "), output))
    return steps


def write_shop(folder: Path) -> list[str]:
    """Put the README's three Python blocks where it says they belong."""
    shop, tests, script = blocks("python")
    (folder / "shop.py").write_text(shop)
    (folder / "test_shop.py").write_text(tests)
    (folder / "talk.py").write_text(script)
    return [shop, tests, script]


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
