"""Pair classification: does the similarity of two sentences tell whether they are a pair?"""

from pathlib import Path
from typing import Any, ClassVar

from embedtrain.errors import UserError
from embedtrain.evaluation.result import Predictions
from embedtrain.tasks.base import Outcome, Task
from embedtrain.tasks.files import TaskFiles, item_ids, read_rows
from embedtrain.tasks.sts import pair_texts
from embedtrain.tasks.subject import Subject

LABELS = {"0": 0.0, "1": 1.0, "ENTAILMENT": 1.0, "NEUTRAL": 0.0, "CONTRADICTION": 0.0}
"""What labels mean: 1 is a pair. Entailment counts as one, everything else does not."""


class PairClassification(Task):
    """Order pairs by similarity and take the average precision of those labelled 1, as in MTEB."""

    kind: ClassVar[str] = "pair_classification"
    needs: ClassVar[str] = "rows {sentence1, sentence2, label: 0 or 1}"

    def __init__(self, files: TaskFiles, rows: list[dict[str, Any]]) -> None:
        self.files = files
        self.rows = rows
        self.ids = item_ids(files.path, rows)
        self.labels = [
            _label(row["label"], files.path, name) for row, name in zip(rows, self.ids, strict=True)
        ]
        if len(set(self.labels)) < 2:
            raise UserError(files.path, "has labels of one kind only", cure="Give pairs and others")
        self.data = files.described("pair_classification", len(rows), len(rows))

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and a label."""
        return {"sentence1", "sentence2", "label"} <= files.columns

    @classmethod
    def open(cls, files: TaskFiles) -> "PairClassification":
        """Read the pairs."""
        columns = {"sentence1": str, "sentence2": str, "label": object}
        return cls(files, read_rows(files.path, columns))

    def run(self, subject: Subject) -> Outcome:
        """Compare the sentences of each pair."""
        similarities = subject.similarities(
            [row["sentence1"] for row in self.rows], [row["sentence2"] for row in self.rows]
        )
        predictions = Predictions(
            predicted=dict(zip(self.ids, similarities.tolist(), strict=True)),
            expected=dict(zip(self.ids, self.labels, strict=True)),
        )
        return Outcome({}, predictions, ("average_precision",))

    @property
    def item_file(self) -> Path:
        """The file of the pairs."""
        return self.files.path

    @property
    def texts(self) -> dict[str, str]:
        """Item to both sentences."""
        return pair_texts(self.ids, self.rows)


def _label(value: object, path: Path, name: str) -> float:
    key = str(int(value)) if isinstance(value, bool | int) else str(value).upper()
    if key not in LABELS:
        raise UserError(
            path,
            f"has an unknown label in row {name!r}",
            got=value,
            cure="Write 1 for a pair, else 0",
        )
    return LABELS[key]
