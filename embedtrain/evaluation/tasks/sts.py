"""Semantic textual similarity: do similar sentences have similar vectors, judged by people?"""

from typing import ClassVar

from embedtrain.evaluation.tasks.base import Outcome
from embedtrain.evaluation.tasks.sentence_pairs import SentencePairs
from embedtrain.evaluation.tasks.subject import Subject


class Sts(SentencePairs):
    """Correlate the similarity of two sentences with people's judgment, Spearman first, as in MTEB."""

    kind: ClassVar[str] = "sts"
    needs: ClassVar[str] = "rows {sentence1, sentence2, score}"
    columns: ClassVar = {"score": (int, float)}

    def run(self, subject: Subject) -> Outcome:
        """Compare the sentences of each pair."""
        scores = [float(row["score"]) for row in self.rows]
        return self.compared(subject, scores, ("spearman", "pearson"))
