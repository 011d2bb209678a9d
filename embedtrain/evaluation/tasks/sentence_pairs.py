"""Pairs of sentences, which several kinds of tasks judge in their own way."""

from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.files import TaskFiles, item_ids, read_rows


class SentencePairs(Task, ABC):
    """Rows {sentence1, sentence2} with the judgments that a subclass names in ``columns``."""

    columns: ClassVar[Mapping[str, Any]]
    """Columns besides the sentences, and their types."""

    def __init__(self, files: TaskFiles, rows: list[dict[str, Any]]) -> None:
        self.files = files
        self.rows = rows
        self.ids = item_ids(files.path, rows)
        self.data = files.described(self.kind, len(rows), len(rows))

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and what belongs to them."""
        return {"sentence1", "sentence2", *cls.columns} <= files.columns

    @classmethod
    def open(cls, files: TaskFiles) -> "SentencePairs":
        """Read the pairs."""
        return cls(
            files, read_rows(files.path, {"sentence1": str, "sentence2": str, **cls.columns})
        )

    @property
    def sentences(self) -> tuple[list[str], list[str]]:
        """The first sentences of all pairs, and the second ones."""
        first, second = ([row[name] for row in self.rows] for name in ("sentence1", "sentence2"))
        return first, second

    @property
    def item_file(self) -> Path:
        """The file of the pairs."""
        return self.files.path

    @property
    def texts(self) -> dict[str, str]:
        """Item to both sentences."""
        pairs = zip(self.ids, *self.sentences, strict=True)
        return {name: f"{first} | {second}" for name, first, second in pairs}
