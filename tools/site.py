"""What the docs' site has besides the pages in docs/: reference pages made from the code, and the files of the project
that the pages link to. `tools/check docs` runs this before it builds the site."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe
from magnetar.pipelines.cli.app import app
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCES = ROOT / "build" / "docs"
PACKAGE = ROOT / "build" / "package" / "magnetar"
ROOMS = ("schemas", "aggregates", "projections", "pipelines")
METRICS = tuple(f"magnetar.pipelines.{part}_metrics" for part in ("worker", "projector", "process"))
LINK = re.compile(r"\]\((?!https?:|mailto:|#)(?P<to>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".java": "java", "": "text", ".yml": "yaml"}


def main() -> None:
    """Write the site's sources to build/docs, and the package, as it is once installed, to build/package."""
    for folder in (SOURCES, PACKAGE.parent):
        shutil.rmtree(folder, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "magnetar", PACKAGE, ignore=ignore)
    for room in ROOMS:
        shutil.copytree(ROOT / room, PACKAGE / room, ignore=ignore)
    shutil.copytree(DOCS, SOURCES)
    for path in [*DOCS.rglob("*.md"), *linked()]:
        write(page_of(path), page(path))
    write("reference/command-line.md", command_line())
    write("reference/settings.md", settings())
    write("reference/metrics.md", metrics())


def write(name: str, text: str) -> None:
    file = SOURCES / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def page(path: Path) -> str:
    """A file of the project as a page of the site, with its links leading to pages."""
    if path.suffix != ".md":
        return source(path)
    text = path.read_text()
    if path == DOCS / "adr" / "README.md":
        text += "\n" + "".join(decisions())

    def to_page(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / link["to"]))
        if not target.exists() or not target.is_relative_to(ROOT):
            return link[0]  # the build says what is wrong with it
        uri = os.path.relpath(page_of(target), Path(page_of(path)).parent)
        return f"]({uri}{link['anchor'] or ''})"

    return LINK.sub(to_page, text)


def command_line() -> str:
    """The command line's help, as Typer writes it down."""
    command = [sys.executable, "-P", "-m", "typer", "magnetar.pipelines.cli.app", "utils", "docs", "--name", "magnetar"]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd="/")
    if "\n## `magnetar dev`\n" not in made.stdout:
        raise ValueError(f"this is not the help of all commands:\n{made.stdout}")
    text = made.stdout.replace("# `magnetar`", "# The command line", 1)
    for registered in app.registered_commands:
        if registered.hidden:  # Typer writes it down all the same
            text = re.sub(rf"^\* `{registered.name}`: .*\n", "", text, flags=re.MULTILINE)
            text = re.sub(rf"^## `magnetar {registered.name}`\n(.|\n)*?(?=^## |\Z)", "", text, flags=re.MULTILINE)
    return text


def settings() -> str:
    """The settings with their defaults, from the class that reads them."""
    documented = griffe.load("magnetar.pipelines.settings", search_paths=[str(PACKAGE.parent)])["Settings"].members
    fields = importlib.import_module("magnetar.pipelines.settings").Settings.model_fields
    rows = []
    for name, field in fields.items():
        docstring = documented[name].docstring
        if docstring is None:
            raise ValueError(f"the setting {name} says nothing of itself")
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `MAGNETAR_{name.upper()}` | {default} | {' '.join(docstring.value.split())} |\n")
    return (
        "# Settings\n\nSettings come from the environment. Arguments of the command line win over them.\n\n"
        "| variable | default | meaning |\n|---|---|---|\n" + "".join(rows)
    )


def metrics() -> str:
    """The metrics with their labels, from the modules that emit them."""
    rows = []
    for module in METRICS:
        for metric in vars(importlib.import_module(module)).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                name = f"{family.name}_total" if family.type == "counter" else family.name
                # Private, and the only place that says it before there is a sample.
                labels = ", ".join(f"`{label}`" for label in vars(metric)["_labelnames"])
                rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n")
    return (
        "# Metrics\n\nWhat `magnetar run` shows under `/metrics`, where `MAGNETAR_HEALTH_PORT` names a port; beside "
        "these, memory, processor time and open files of the process (`process_…`). How many samples there are is "
        "bounded by the partitions.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(rows)
    )


def decisions() -> Iterator[str]:
    """A line for each decision, in their order."""
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        yield f"- [{title}]({path.name})\n"


def linked() -> set[Path]:
    """What the pages link to outside of docs/, and what those link to in turn."""
    found: set[Path] = set()
    left = list(DOCS.rglob("*.md"))
    while left:
        page = left.pop()
        for link in LINK.finditer(page.read_text()):
            target = Path(os.path.normpath(page.parent / link["to"]))
            if target.exists() and not target.is_relative_to(DOCS) and target not in found:
                found.add(target)
                left += [target] if target.suffix == ".md" else []
    return found


def page_of(path: Path) -> str:
    """The address, within the site's sources, of the page that shows a file or a folder of the project."""
    if path == DOCS / "adr":
        return "adr/README.md"
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    name = str(path.relative_to(ROOT))
    return f"project/{name}" if path.suffix == ".md" else f"project/{name}.md"


def source(path: Path) -> str:
    """A file of the project as a page; of a folder, its modules."""
    if path.is_dir():
        modules = [module for module in sorted(path.glob("*.py")) if module.read_text().strip()]
        return f"# {path.relative_to(ROOT)}\n" + "".join(f"\n## {each.name}\n\n{fenced(each)}" for each in modules)
    return f"# {path.relative_to(ROOT)}\n\n{fenced(path)}"


def fenced(path: Path) -> str:
    return f"````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}````\n"


if __name__ == "__main__":
    main()
