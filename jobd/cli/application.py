"""Find the application's Jobs by `module:name`, from the current folder or installed.

What goes wrong here goes wrong on somebody's first day with jobd, so every error names the setting, the
value and what was found instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jobd.cli.session import load
from jobd.errors import ConfigError, JobdError

if TYPE_CHECKING:
    from jobd.app import Jobs
    from jobd.settings import Settings

SETTING = "JOBD_APP"


def configured(**flags: Any) -> tuple[Jobs, Settings]:
    """The application's Jobs, or an empty one, and the settings: flags over its keywords over the rest."""
    from jobd.app import Jobs

    settings = load(**flags)
    if settings.app is None:
        return Jobs(), settings
    jobs = load_jobs(settings.app)
    return jobs, load(under=jobs.overrides, **flags)


def load_jobs(target: str) -> Jobs:
    """The Jobs at `module:name`. Raises ConfigError."""
    from jobd.app import Jobs

    module_name, _, name = target.partition(":")
    module = _module(target, module_name)
    found = getattr(module, name, None)
    if isinstance(found, Jobs):
        return found
    candidates = [key for key, value in vars(module).items() if isinstance(value, Jobs)]
    remedy = _did_you_mean([f"{module_name}:{key}" for key in candidates]) or (
        f"give module {module_name} a `jobs = Jobs()` and name it here"
    )
    if found is None:
        raise ConfigError(SETTING, target, f"module {module_name} has no {name!r}; {remedy}")
    kind = type(found).__name__
    raise ConfigError(SETTING, target, f"{name!r} is not a Jobs but a {kind}; {remedy}")


def _module(target: str, name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except JobdError as error:
        error.add_note(f"raised while importing {SETTING} = {target!r}{_place(error)}")
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                SETTING, target, f"module {name} needs {error.name}, which is not installed{_place(error)}"
            ) from error
        remedy = _did_you_mean(f"{near}:{target.partition(':')[2]}" for near in _near_modules(name)) or (
            "correct its name, or start jobd in the folder that has it"
        )
        where = f"looked in {folder} and among what is installed for {sys.executable}"
        raise ConfigError(SETTING, target, f"there is no module {error.name}; {remedy} ({where})") from error
    except Exception as error:
        raised = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ConfigError(SETTING, target, f"importing {name} raised {raised}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where in the application's own files an import went wrong."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", os.path.dirname(os.path.dirname(__file__)))):
            return f" ({frame.filename}:{frame.lineno})"
    return ""


def _near_modules(name: str) -> list[str]:
    """Modules below the current folder whose name is like this one."""
    known = []
    folder = Path.cwd()
    for pattern in ("*.py", "*/*.py", "*/*/*.py"):
        for path in folder.glob(pattern):
            parts = path.relative_to(folder).with_suffix("").parts
            if all(part.isidentifier() for part in parts):
                known.append(".".join(parts).removesuffix(".__init__"))
    ends_alike = [module for module in known if module.rpartition(".")[2] == name.rpartition(".")[2]]
    return list(dict.fromkeys([*get_close_matches(name, known), *ends_alike]))[:3]


def _did_you_mean(candidates: Iterable[str]) -> str:
    words = " or ".join(candidates)
    return f"did you mean {words}?" if words else ""
