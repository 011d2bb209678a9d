"""Finds the kinds of tasks in this folder, and the kind that data is of."""

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import embedtrain.evaluation.tasks
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.files import find_files
from embedtrain.plugins import find_reference, load_plugin


@lru_cache(maxsize=1)
def task_kinds() -> dict[str, type[Task]]:
    """Return every kind of task by its name: each subclass of :class:`Task` with one, in a file of this folder."""
    for module in iter_modules(embedtrain.evaluation.tasks.__path__):
        import_module(f"embedtrain.evaluation.tasks.{module.name}")
    found = {kind.kind: kind for kind in _subclasses(Task) if "kind" in vars(kind)}
    own = {name: kind for name, kind in found.items() if kind.__module__.startswith(__package__)}
    return dict(sorted(own.items()))


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    """Yield all subclasses, those of subclasses included: some only hold what others share."""
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def open_task(path: str, split: str | None = None, kind: str | None = None) -> Task:
    """Open the data of a path as the kind of task it looks like, or as ``kind``, which may be ``module:Class``.

    Raises:
        UserError: If it looks like none, or is not what its kind needs.
    """
    files, kinds = find_files(path, split), task_kinds()
    if kind is not None and kind not in kinds:
        if find_reference(kind, "embedtrain.tasks") is None:
            raise UserError("--task", "is unknown", got=kind, cure=f"Use {', '.join(kinds)}")
        own = load_plugin(kind, "embedtrain.tasks")
        if not (isinstance(own, type) and issubclass(own, Task)):
            cure = "Name a subclass of embedtrain.evaluation.tasks.base.Task"
            raise UserError(kind, "is no kind of task", got=own, cure=cure)
        return own(files)
    if kind is not None:
        return kinds[kind](files)
    for candidate in kinds.values():
        if candidate.recognises(files):
            return candidate(files)
    forms = "; ".join(f"{name}: {found.needs}" for name, found in kinds.items())
    raise UserError(
        files.path,
        "looks like no task",
        got=sorted(files.columns) or ...,
        cure=f"Give one of these: {forms}",
    )
