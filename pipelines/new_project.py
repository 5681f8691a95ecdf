"""A new project: one package with an aggregate, a projection and a pipeline, its tests, and what a repository needs."""

from __future__ import annotations

import json
import keyword
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from magnetar.schemas import DataFolderError, DeclarationError, SettingsError
from magnetar.schemas.names import check_context

_FILES: Final = {
    "{name}/__init__.py": "package.py",
    "{name}/order.py": "order.py",
    "{name}/projections.py": "projections.py",
    "{name}/pipeline.py": "pipeline.py",
    "tests/test_order.py": "test_order.py",
    "tests/test_pipeline.py": "test_pipeline.py",
    ".github/workflows/ci.yml": "ci.yml",
    ".gitignore": "gitignore",
    ".dockerignore": "dockerignore",
    "Dockerfile": "Dockerfile",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
}
"""By the path in the project, the template that makes it."""


_LOCAL_README: Final = """
## Where Magnetar comes from

When this project was made, Magnetar was installed from

    $url

and `pyproject.toml` requires it from there. On another machine, change that line: to where Magnetar is on that one, or
to `magnetar[embedded]>=$version` where an index has it.

CI and Docker cannot reach this machine. They take the wheel that you keep in the repository:

```bash
pip wheel --no-deps --wheel-dir vendor 'magnetar @ $url'
git add --force vendor
```
"""
_LOCAL_CI: Final = """\
# Magnetar came from a folder of one machine: README.md says how its wheel comes into vendor/.
      - run: pip install "$$(ls vendor/magnetar-*.whl)[embedded]" mypy pytest ruff
      - run: pip install --no-deps --editable ."""


_LOCAL_DOCKER: Final = """\
# README.md says how Magnetar's wheel comes into vendor/.
COPY vendor ./vendor
RUN /opt/venv/bin/pip install "$$(ls vendor/magnetar-*.whl)[embedded]" && /opt/venv/bin/pip install --no-deps ."""


class Origin(NamedTuple):
    """Where Magnetar was installed from, and what follows from that for a project that requires it."""

    requirement: str
    """For its pyproject.toml (PEP 508)."""
    readme: str = ""
    """What its README has to say of it."""
    ci: str = "- run: pip install --editable '.[dev]'"
    """How its CI installs everything."""
    docker: str = "RUN /opt/venv/bin/pip install ."
    """How its image does."""


def origin_of(version: str, direct_url: str | None) -> Origin:
    """From the installed version and the text of its `direct_url.json`, which an index alone leaves out (PEP 610)."""
    try:
        found = json.loads(direct_url or "{}")
        url, vcs = found.get("url"), found.get("vcs_info")
    except (ValueError, AttributeError):
        url = vcs = None
    if not url:
        return Origin(f"magnetar[embedded]>={version}")
    if vcs:
        return Origin(f"magnetar[embedded] @ {vcs['vcs']}+{url}@{vcs['commit_id']}")
    requirement = f"magnetar[embedded] @ {url}"
    if not url.startswith("file:"):
        return Origin(requirement)
    values = {"url": url, "version": version}
    return Origin(
        requirement, *(Template(text).substitute(values) for text in (_LOCAL_README, _LOCAL_CI, _LOCAL_DOCKER))
    )


def _origin() -> Origin:
    installed = metadata.distribution("magnetar")
    return origin_of(installed.version, installed.read_text("direct_url.json"))


def make_project(name: str, where: Path) -> list[Path]:
    """Make the project in a new folder `where/name`, as a whole; returns its files, relative to the folder.

    Raises SettingsError for a name that cannot be a package and a context, or a folder that exists: nothing is
    overwritten. Raises DataFolderError if the folder cannot be written.
    """
    _check_name(name)
    final = where / name
    if final.exists():
        raise SettingsError(f"{final} exists already, and nothing is overwritten.", cure="Choose another name.")
    making = where / f".{name}.making"
    try:
        shutil.rmtree(making, ignore_errors=True)
        values = {"name": name, **_origin()._asdict()}
        paths = [_write(making / path.format(name=name), template, values) for path, template in _FILES.items()]
        making.rename(final)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise DataFolderError(
            f"{final} cannot be made: {error.strerror}.", cure="Make room, or change to a folder that you may write to."
        ) from error
    return [path.relative_to(making) for path in paths]


def _write(path: Path, template: str, values: Mapping[str, str]) -> Path:
    text = (resources.files(f"{__package__}.templates") / f"{template}.tmpl").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(text).substitute(values), encoding="utf-8")
    return path


def _check_name(name: str) -> None:
    try:
        check_context(name)
    except DeclarationError as error:
        raise SettingsError(f"A project cannot be called {name!r}.", cure=error.cure) from error
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name == "tests":
        raise SettingsError(
            f"A project cannot be called {name!r}: Python has something of that name.", cure="Choose another name."
        )
