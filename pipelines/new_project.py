"""A new project: one package with an aggregate, a projection and a pipeline, its tests, and what a repository needs."""

from __future__ import annotations

import keyword
import shutil
import sys
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

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
        paths = [_write(making / path.format(name=name), template, name) for path, template in _FILES.items()]
        making.rename(final)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise DataFolderError(
            f"{final} cannot be made: {error.strerror}.", cure="Make room, or change to a folder that you may write to."
        ) from error
    return [path.relative_to(making) for path in paths]


def _write(path: Path, template: str, name: str) -> Path:
    text = (resources.files(f"{__package__}.templates") / f"{template}.tmpl").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(text).substitute(name=name), encoding="utf-8")
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
