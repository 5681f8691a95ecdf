"""From the name of a module to the pipelines in it."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from magnetar.schemas import DeclarationError, MagnetarError, SettingsError

from .chart_settings import of_the_module
from .pipeline import Pipeline

INTERRUPTED = 130
"""What the command line exits with on Ctrl-C, also in the middle of an import."""


def load_pipeline(target: str) -> Pipeline:
    """Import `package.module` or `package.module:name`, and give the pipeline in it.

    The current folder can be imported from. Raises SettingsError for a target that cannot be found, and
    DeclarationError, naming file and line, for a module that does not import or declares no pipeline, or several.
    """
    module_name, _, name = target.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise SettingsError(
            f"{target!r} is not the name of a module.",
            cure=of_the_module("Write it as Python imports it: shop.pipeline"),
        )
    module = _import(module_name)
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, Pipeline):
            raise DeclarationError(f"{module_name} has no pipeline called {name!r}.", cure="Check the name behind ':'.")
        return found
    pipelines = {id(value): value for value in vars(module).values() if isinstance(value, Pipeline)}
    if not pipelines:
        raise DeclarationError(
            f"The module {module_name} declares no pipeline.",
            cure=of_the_module('It needs a line like  shop = Pipeline("shop", aggregates=[Order])'),
        )
    for read in [id(other) for each in pipelines.values() for other in each.reads.values()]:
        pipelines.pop(read, None)  # it is imported to be read
    if len(pipelines) > 1:
        names = ", ".join(sorted(p.name for p in pipelines.values()))
        raise DeclarationError(f"{module_name} declares several pipelines: {names}.", cure="Say which: module:variable")
    return next(iter(pipelines.values()))


def _import(module_name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except MagnetarError as error:
        raise DeclarationError(
            f"{module_name} cannot be used. {error.what}", cure=error.cure, **error.fields
        ) from error
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise SettingsError(
                f"There is no module {error.name!r} in {here} or among the installed packages.",
                cure=of_the_module("Change to the folder that contains it, or check the name."),
            ) from error
        raise _does_not_import(module_name, error) from error
    except SystemExit as error:
        if error.code == INTERRUPTED:  # Ctrl-C
            raise
        raise _does_not_import(module_name, error) from error
    except Exception as error:  # a user's module can raise anything while it is imported
        raise _does_not_import(module_name, error) from error


def _does_not_import(module_name: str, error: BaseException) -> DeclarationError:
    lines = traceback.format_exception_only(error)  # also of an error whose own text raises
    said = " ".join(lines[-1 if isinstance(error, SyntaxError) else 0].split())
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}" if error.filename else module_name
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else module_name
    return DeclarationError(
        f"The module {module_name} does not import: {said} ({place}).",
        cure="Correct it; `python -c 'import " + module_name + "'` shows the whole traceback.",
    )
