"""Pair classification: does the similarity of two sentences tell whether they are a pair?"""

from pathlib import Path
from typing import ClassVar

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.base import Outcome
from embedtrain.evaluation.tasks.files import TaskFiles
from embedtrain.evaluation.tasks.sentence_pairs import SentencePairs
from embedtrain.evaluation.tasks.subject import Subject

LABELS = {"0": 0.0, "1": 1.0, "ENTAILMENT": 1.0, "NEUTRAL": 0.0, "CONTRADICTION": 0.0}
"""What labels mean: 1 is a pair. Entailment counts as one, everything else does not."""


class PairClassification(SentencePairs):
    """Order pairs by similarity and take the average precision of those labelled 1, as in MTEB."""

    kind: ClassVar[str] = "pair_classification"
    needs: ClassVar[str] = "rows {sentence1, sentence2, label: 0 or 1}"

    columns: ClassVar = {"label": object}

    def __init__(self, files: TaskFiles) -> None:
        super().__init__(files)
        named = zip(self.rows, self.ids, strict=True)
        self.labels = [_label(row["label"], files.path, name) for row, name in named]
        if len(set(self.labels)) < 2:
            raise UserError(files.path, "has labels of one kind only", cure="Give pairs and others")

    def run(self, subject: Subject) -> Outcome:
        """Compare the sentences of each pair."""
        return self.compared(subject, self.labels, ("average_precision",))


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
