"""The README's code blocks."""

import re
from pathlib import Path

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
