"""Every block of Python and of console on every page runs, and prints what the page says."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, RUN, Block, commands, files, pages, parts
from tests.docs.reading import Reader, fits
from tests.docs.record import Recorder, rewritten

NOT_RUN = 13
"""How many blocks say why they are not run by anybody. One more wants a good reason."""

HIDDEN = re.compile(r"^ *```(?:py|python3|pycon|sh|shell)\b.*|^    (?:class|def|from|import|\$) .*", re.MULTILINE)


def blocks(page: Path) -> list[Block]:
    """The page's blocks that ought to run."""
    return [part for part in parts(page) if isinstance(part, Block) and part.language in RUN]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page)], ids=name_of)
def test_all_code_on_the_page_runs_and_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        reader.read(page)
    finally:
        reader.close()


def test_the_blocks_that_are_not_run_are_counted() -> None:
    found = [(name_of(page), block.not_run) for page in pages() for block in blocks(page) if block.not_run]
    assert len([why for _, why in found if why.startswith("not run: ")]) == NOT_RUN, found


def test_who_runs_a_block_instead_knows_its_page() -> None:
    for page in pages():
        for block in blocks(page):
            if block.not_run.startswith("run by "):
                assert page.name in (ROOT / block.not_run.removeprefix("run by ")).read_text(), name_of(page)


def test_no_python_is_hidden_from_the_runner() -> None:
    """By an indentation instead of a fence, or by another name of the language."""
    for page in pages():
        hidden = HIDDEN.findall(page.read_text())
        indented = [line for line in hidden if not any(line in block.text for block in blocks(page))]
        assert not indented, f"{page}: {indented}"


def test_the_first_pipeline_is_under_sixty_lines() -> None:
    assert len(files(ROOT / "README.md")["shop.py"].splitlines()) < 60


# --- the runner itself -----------------------------------------------------------------------------------------------


def read(tmp_path: Path, text: str) -> None:
    """Read a page with this text."""
    page = ROOT / "docs" / "made-up.md"
    reader = Reader(tmp_path)
    try:
        for part in parts(page, text):
            reader.do(part, str(page))
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```python\nraise ValueError(7)\n```\n", "ValueError: 7"),
        ("```python\nprint(1)\n```\n", "--- printed\n1"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "--- the page says\n2"),
        ("```console\n$ echo 1\n2\n```\n", "--- printed\n1"),
        ("```console\n$ echo 1\n> 2\n```\n", "--- printed\n1"),
        ("```console\n$ false\n```\n", "exit code 1"),
        ("```bash\nfalse\n```\n", "exit code 1"),
        ('```python title="test_a.py"\ndef test_a():\n    assert 1 == 2\n```\n', "assert 1 == 2"),
        ('```python title="a.py"\nx = 1\n```\n```python\nimport a\nassert a.x == 2\n```\n', "AssertionError"),
        ("<!-- console\n$ echo 1\n-->\n", "--- printed\n1"),
        ("```console\n$ magnetar dev nothing\n```\n", "There is no module 'nothing'"),
    ],
)
def test_a_page_that_is_wrong_is_found(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)


def test_a_page_that_is_right_is_accepted(tmp_path: Path) -> None:
    read(
        tmp_path,
        """
<!-- not run: it would destroy everything -->
```bash
rm -rf /
```

```python title="folder/a.py"
x = 1
```

```python
from folder.a import x
print(x)
y = 2
```

```text
1
```

```python
print(x + y, "2026-01-01 10:00", "tea", 3, sep="\\n")
```

```text
3
2025-12-31 23:59
…
3
```

```console
$ twice() { echo "$1 $1"; }
$ twice one
one one
$ echo "two
> lines"
two
lines
```
""",
    )


def test_only_what_differs_each_time_may_differ() -> None:
    assert fits("command 0199d0a5-5b3c-7def-8a12-0123456789ab\n", "command 0199d0a5-0000-7000-8000-000000000000\n")
    assert fits("┃ a   ┃\n┡━━━━━╇\n", "┃ a ┃\n┡━╇\n")
    assert not fits("version 1\n", "version 2\n")
    assert not fits("one\ntwo\n", "one\n")
    assert fits("one\ntwo\nthree\n", "one\n…\n")
    assert not fits("zero\none\n", "one\n…\n")


def test_commands_go_on_over_lines() -> None:
    block = Block("bash", "# why\nmake a \\\n  b\nmake c\n", 1)
    assert [command for command, _ in commands(block)] == ["make a   b", "make c"]


def test_what_a_page_says_is_written_down_anew_where_it_does_not_fit(tmp_path: Path) -> None:
    page = ROOT / "docs" / "made-up.md"
    dated = "$ date +%Y-01-01T%H:%M:%S\n2020-01-01T00:00:00\n"
    text = f"Said:\n\n```console\n$ echo 1\n2\n{dated}$ cat <<END\n> 3\n> END\n```\n"
    recorder = Recorder(tmp_path)
    try:
        for part in parts(page, text):
            recorder.do(part, str(page))
    finally:
        recorder.close()
    assert recorder.kept == {(3, "echo 1"): "1\n", (3, "cat <<END\n3\nEND"): "3\n"}
    assert rewritten(text, recorder.kept) == text.replace("2\n$ date", "1\n$ date").replace("> END\n", "> END\n3\n")
