"""Bitext mining: find the translation of each sentence among those of all others."""

from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from embedtrain.evaluation.measures.metrics import PerQuery
from embedtrain.evaluation.tasks.base import Outcome
from embedtrain.evaluation.tasks.files import TaskFiles
from embedtrain.evaluation.tasks.sentence_pairs import SentencePairs
from embedtrain.evaluation.tasks.subject import Subject


class BitextMining(SentencePairs):
    r"""Search for each ``sentence1`` the nearest ``sentence2``.

    ``f1`` is MTEB's: the F1 of each sentence as a class of its own, $2 / (1 + n)$ for a translation that
    was found and is named for n sentences, else 0.
    """

    kind: ClassVar[str] = "bitext_mining"
    needs: ClassVar[str] = "rows {sentence1, sentence2}, translations of each other"

    columns: ClassVar = {}

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and no judgment."""
        return super().recognises(files) and not {"score", "label"} & files.columns

    def run(self, subject: Subject) -> Outcome:
        """Search the nearest sentence of the other language."""
        found = subject.search(*self.sentences, 1, "symmetric")
        return Outcome(bitext_scores(found.indices[:, 0], self.ids))


def bitext_scores(found: Int64[np.ndarray, " pairs"], items: list[str]) -> PerQuery:
    """Score the row that was found for each row; its own is the right one."""
    right = found == np.arange(len(found))
    named = np.bincount(found, minlength=len(found))
    f1 = np.where(right, 2 / (1 + named), 0.0)
    return {
        "f1": dict(zip(items, f1.tolist(), strict=True)),
        "accuracy": dict(zip(items, right.astype(float).tolist(), strict=True)),
    }
