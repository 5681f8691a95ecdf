"""The code on a page of the docs, in its order.

What a page may say, besides its code:

- ```` ```python title="shop.py" ````: the block is a file, written where the page's shell is: in a folder of its own,
  until it says `cd`. A file called `test_….py` is also run by pytest.
- ```` ```python ````: run in one interpreter for the page. The block ```` ```text ```` that follows at once is what it
  prints.
- ```` ```console ````: each `$ command` (`> ` goes on with it) is run in one shell for the page, and prints what stands
  below it. A line `…` stands for any lines.
- ```` ```bash ````: each line is such a command, whatever it prints.
- `$ magnetar dev …` goes on while the page does, as in another terminal; what it says is in the file $FIRST_TERMINAL.
- `<!-- not run: the reason -->` before a block, or `<!-- run by tests/….py -->` for what needs more than a folder.
- `<!-- files of ../README.md -->`: the files of that page are written first.
- `<!-- console`, the block, `-->`: run, and not shown.
- `<!-- Ctrl-C -->`: the `magnetar dev` that runs is stopped.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("python", "console", "bash")

_PART = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<info>[^`\n]*)\n(?P<text>.*?)^ *(?P=fence) *$"
    r"|^<!-- (?P<reason>(?:not run:|run by) [^\n]+) -->$"
    r"|^<!-- files of (?P<page>\S+) -->$"
    r"|^<!-- (?P<stop>Ctrl-C) -->$"
    r"|^<!-- (?P<hidden>python|console|bash)\n(?P<hidden_text>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block of code."""

    language: str
    text: str
    line: int
    title: str = ""
    not_run: str = ""
    """`not run: why`, or `run by` whom instead."""
    printed: str | None = None
    """What the page says that a Python block prints."""


@dataclass(frozen=True)
class Files:
    """The files of another page."""

    of: Path


@dataclass(frozen=True)
class Stop:
    """Stops what runs."""


Part = Block | Files | Stop


def pages() -> list[Path]:
    """Every page that a reader may copy from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def parts(page: Path, text: str | None = None) -> list[Part]:
    """What stands on a page, in its order, with the outputs of Python blocks joined to them."""
    found: list[Part] = []
    end = 0
    text = page.read_text() if text is None else text
    for part, start, after in _parts(page, text):
        last = found[-1] if found else None
        if (
            isinstance(part, Block)
            and isinstance(last, Block)
            and part.language in ("", "text")
            and last.language == "python"
            and not last.title
            and not text[end:start].strip()
        ):
            found[-1] = replace(last, printed=part.text)
        else:
            found.append(part)
        end = after
    return found


def _parts(page: Path, text: str) -> Iterator[tuple[Part, int, int]]:
    reason = ""
    for found in _PART.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["reason"]:
            reason = found["reason"]
            continue
        if found["page"]:
            yield Files((page.parent / found["page"]).resolve()), *found.span()
        elif found["stop"]:
            yield Stop(), *found.span()
        elif found["hidden"]:
            yield Block(found["hidden"], found["hidden_text"], line), *found.span()
        else:
            language, _, more = found["info"].strip().partition(" ")
            title = re.search(r'title="([^"]+)"', more)
            code = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
            yield Block(language, code, line, title[1] if title else "", reason), *found.span()
        reason = ""


def files(page: Path) -> dict[str, str]:
    """The files that a page writes, each as it stands there last, and those that it takes from other pages."""
    found: dict[str, str] = {}
    for part in parts(page):
        if isinstance(part, Files):
            found |= files(part.of)
        elif isinstance(part, Block) and part.title:
            found[part.title] = part.text
    return found


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console or bash block, each with what stands below it."""
    if block.language == "bash":
        joined = block.text.replace("\\\n", "")
        yield from ((line, "…\n") for line in joined.splitlines() if line.strip() and not line.startswith("#"))
        return
    for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *lines = step.splitlines()
        while lines and lines[0].startswith("> "):
            command += "\n" + lines.pop(0)[2:]
        yield command, "".join(f"{line}\n" for line in lines)
