"""What every kind of task offers, and what running one gives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from embedtrain.evaluation.measures.metrics import PerQuery, Run
from embedtrain.evaluation.results.result import EvaluatedData, Predictions, Ties
from embedtrain.evaluation.tasks.files import TaskFiles, item_id, read_rows
from embedtrain.evaluation.tasks.subject import Subject


@dataclass(frozen=True)
class Outcome:
    """What a model did on a task."""

    per_query: PerQuery
    """Metrics that are means over queries or items."""
    predictions: Predictions | None = None
    set_metrics: tuple[str, ...] = ()
    """Names of the metrics to be computed from ``predictions``."""
    run: Run = field(default_factory=dict)
    """The results of each query, where the task ranks documents."""
    ties: Ties | None = None
    """Where the order of equal scores decides more than it should."""


class Task(ABC):
    """Data of one kind that a model can be scored on.

    A new kind is a new file in this folder with a subclass that sets ``kind``.
    """

    kind: ClassVar[str]
    needs: ClassVar[str]
    """What its data looks like, for error messages."""
    data: EvaluatedData
    item_file: Path
    """The file whose rows are the items that metrics are averaged over."""
    texts: dict[str, str]
    """The text of each item, for reports."""

    @abstractmethod
    def __init__(self, files: TaskFiles) -> None:
        """Read and check the data; a mistake in it names file and line."""

    @classmethod
    @abstractmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether data looks like this kind; at most one kind says so."""

    @abstractmethod
    def run(self, subject: Subject) -> Outcome:
        """Let the model do the task."""

    def clusters(self, column: str) -> dict[str, str]:
        """Return the label of each item in a column of its data, for statistics by cluster."""
        rows = read_rows(self.item_file, {column: object})
        return {item_id(row, number): str(row[column]) for number, row in enumerate(rows, 1)}
