"""Code of the user's own, named as ``package.module:Name`` or by an entry point; only what is named is imported."""

import re
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from embedtrain.errors import UserError

Group = Literal["embedtrain.objectives", "embedtrain.sources", "embedtrain.tasks"]
"""Entry points in which a package lists what it brings."""
REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

IMPORTED: dict[str, str] = {}
"""What this process has imported so: its name in the recipe, and the file that it stands in."""


def find_reference(name: str, group: Group) -> str | None:
    """Return the ``package.module:Name`` that a name is or that an installed package lists it as; None if neither."""
    if REFERENCE.fullmatch(name):
        return name
    found = tuple(entry_points(group=group, name=name))
    return f"{found[0].module}:{found[0].attr}" if found else None


def refuse_missing(name: str, group: Group) -> None:
    """Refuse a name whose package is not there; nothing is imported for it.

    Raises:
        UserError: In the words of :func:`load_plugin`.
    """
    package = (find_reference(name, group) or name).partition(":")[0].partition(".")[0]
    _look_here()
    if package not in sys.modules and find_spec(package) is None:
        raise _not_installed(name, package)


def load_plugin(name: str, group: Group) -> object:
    """Import what a name stands for; it may also lie in the working folder.

    Raises:
        UserError: If its package is missing, importing it fails, or it is not there.
    """
    module, _, attribute = (find_reference(name, group) or name).partition(":")
    _look_here()
    try:
        found: object = import_module(module)
    except Exception as error:  # whatever the user's module does when it is imported
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if f"{module}.".startswith(f"{missing}."):
            raise _not_installed(name, missing) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(name, f"cannot be imported ({reason})", cure="Mend the module") from error
    for part in attribute.split("."):
        if part not in vars(found):
            away = "Put it into a module, or go on from the script that defines it"
            cure = away if module == "__main__" else "Correct the name"
            raise UserError(name, f"is not there: {module} has no {part}", cure=cure)
        found = vars(found)[part]
    IMPORTED[name] = str(getattr(sys.modules[module], "__file__", None) or module)
    return found


def _look_here() -> None:
    if str(Path.cwd()) not in sys.path:  # a command's own path lacks it; last, it hides nothing
        sys.path.append(str(Path.cwd()))


def _not_installed(name: str, package: str) -> UserError:
    cure = "Install its package, or run where the file lies"
    return UserError(name, f"needs {package}, which is not installed", cure=cure)
