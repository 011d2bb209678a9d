"""Which of several adapters over one backbone acts: decided by the task and the side of a text, never learned."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from embedtrain.section import Section
from embedtrain.types import Side

NAME = re.compile(r"[A-Za-z0-9_-]+")


class SideAdapters(Section):
    """The adapters of a task, which may be one for both sides."""

    query: str
    document: str

    def of(self, side: Side) -> str:
        """Return the adapter of a side."""
        return self.query if side == "query" else self.document


def _spelled_out(given: object) -> object:
    """Let a list stand for tasks whose adapters have their names, and one name for both sides."""
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        given = {name: name for name in given}
    if not isinstance(given, Mapping):
        return given
    return {
        task: {"query": one, "document": one} if isinstance(one, str) else one
        for task, one in given.items()
    }


def names_of(tasks: Mapping[str, SideAdapters]) -> list[str]:
    """Return the names of all adapters, each once."""
    return list(dict.fromkeys(name for one in tasks.values() for name in (one.query, one.document)))


def _refuse_odd_names(tasks: dict[str, SideAdapters]) -> dict[str, SideAdapters]:
    for name in names_of(tasks):
        if not NAME.fullmatch(name):  # folders and weights are called so
            raise ValueError(f"an adapter's name has letters, digits, _ and -; got {name!r}")
    return tasks


TaskAdapters = Annotated[
    dict[str, SideAdapters],
    BeforeValidator(_spelled_out, json_schema_input_type=dict[str, SideAdapters | str] | list[str]),
    AfterValidator(_refuse_odd_names),
]
"""Adapters by task; a list, or one name for both sides, will do in a recipe."""


class ChosenAdapters(Section):
    """The adapters of a model, and those that act now."""

    tasks: dict[str, SideAdapters]
    active: SideAdapters

    def under(self, task: str) -> "ChosenAdapters":
        """Return the same with the adapters of a task acting."""
        return self.model_copy(update={"active": self.tasks[task]})

    @property
    def alike(self) -> "ChosenAdapters":
        """The same with the query's adapter acting on both sides: for texts that are compared with their like."""
        name = self.active.query
        return self.model_copy(update={"active": SideAdapters(query=name, document=name)})
