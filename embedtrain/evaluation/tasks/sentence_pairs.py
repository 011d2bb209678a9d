"""Pairs of sentences, which several kinds of tasks judge in their own way."""

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from embedtrain.evaluation.results.result import Predictions
from embedtrain.evaluation.tasks.base import Outcome, Task
from embedtrain.evaluation.tasks.files import TaskFiles, item_ids, read_rows
from embedtrain.evaluation.tasks.subject import Subject


class SentencePairs(Task, ABC):
    """Rows {sentence1, sentence2} with the judgments that a subclass names in ``columns``."""

    columns: ClassVar[Mapping[str, Any]]
    """Columns besides the sentences, and their types."""

    def __init__(self, files: TaskFiles) -> None:
        wanted = {"sentence1": str, "sentence2": str, **self.columns}
        self.rows = read_rows(files.path, wanted)
        self.ids = item_ids(files.path, self.rows)
        self.data = files.described(self.kind, len(self.rows), len(self.rows))
        self.item_file = files.path
        pairs = zip(self.ids, *self.sentences, strict=True)
        self.texts = {name: f"{first} | {second}" for name, first, second in pairs}

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and what belongs to them."""
        return {"sentence1", "sentence2", *cls.columns} <= files.columns

    @property
    def sentences(self) -> tuple[list[str], list[str]]:
        """The first sentences of all pairs, and the second ones."""
        first, second = ([row[name] for row in self.rows] for name in ("sentence1", "sentence2"))
        return first, second

    def compared(
        self, subject: Subject, expected: list[float], metrics: tuple[str, ...]
    ) -> Outcome:
        """Compare the sentences of each pair; ``metrics`` judge their similarities by what is expected."""
        similarities = subject.similarities(*self.sentences).tolist()
        predictions = Predictions(
            predicted=dict(zip(self.ids, similarities, strict=True)),
            expected=dict(zip(self.ids, expected, strict=True)),
        )
        return Outcome({}, predictions, metrics)
