"""Semantic textual similarity: do similar sentences have similar vectors, judged by people?"""

from pathlib import Path
from typing import Any, ClassVar

from embedtrain.evaluation.result import Predictions
from embedtrain.tasks.base import Outcome, Task
from embedtrain.tasks.files import TaskFiles, item_ids, read_rows
from embedtrain.tasks.subject import Subject


class Sts(Task):
    """Correlate the similarity of two sentences with people's judgment, Spearman first, as in MTEB."""

    kind: ClassVar[str] = "sts"
    needs: ClassVar[str] = "rows {sentence1, sentence2, score}"

    def __init__(self, files: TaskFiles, rows: list[dict[str, Any]]) -> None:
        self.files = files
        self.rows = rows
        self.ids = item_ids(files.path, rows)
        self.data = files.described("sts", len(rows), len(rows))

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and a score."""
        return {"sentence1", "sentence2", "score"} <= files.columns

    @classmethod
    def open(cls, files: TaskFiles) -> "Sts":
        """Read the pairs."""
        return cls(
            files,
            read_rows(files.path, {"sentence1": str, "sentence2": str, "score": (int, float)}),
        )

    def run(self, subject: Subject) -> Outcome:
        """Compare the sentences of each pair."""
        similarities = subject.similarities(
            [row["sentence1"] for row in self.rows], [row["sentence2"] for row in self.rows]
        )
        predictions = Predictions(
            predicted=dict(zip(self.ids, similarities.tolist(), strict=True)),
            expected={
                name: float(row["score"]) for name, row in zip(self.ids, self.rows, strict=True)
            },
        )
        return Outcome({}, predictions, ("spearman", "pearson"))

    @property
    def item_file(self) -> Path:
        """The file of the pairs."""
        return self.files.path

    @property
    def texts(self) -> dict[str, str]:
        """Item to both sentences."""
        return pair_texts(self.ids, self.rows)


def pair_texts(ids: list[str], rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return item to its two sentences, in one text."""
    return {
        name: f"{row['sentence1']} | {row['sentence2']}"
        for name, row in zip(ids, rows, strict=True)
    }
