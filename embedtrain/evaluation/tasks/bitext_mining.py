"""Bitext mining: find the translation of each sentence among those of all others."""

from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import PerQuery
from embedtrain.evaluation.tasks.base import Outcome
from embedtrain.evaluation.tasks.files import TaskFiles
from embedtrain.evaluation.tasks.sentence_pairs import SentencePairs
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.retrieval.dense.exact import SearchResult

Margin = Literal["ratio", "distance", "absolute"]
NEIGHBOURS = 4
"""How many nearest sentences of the other side a cosine is measured against."""
ALTERED = "altered"
"""The kind of distractors that nobody named a kind for."""


class BitextMining(SentencePairs):
    r"""Search for each ``sentence1`` the nearest ``sentence2``.

    ``f1`` is MTEB's: the F1 of each sentence as a class of its own, $2 / (1 + n)$ for a translation that
    was found and is named for n sentences, else 0. ``xsim_error`` (lower is better) is the share for which the best
    by the ratio of :func:`margin_choices` has another text than the translation; ``xsim_error_distance`` and
    ``xsim_error_absolute`` are by its other margins.

    A row may hold ``distractors``, altered translations as a list or by their kind: ``{number: [..], entity: [..]}``.
    They join the sentences to choose from in ``xsim_plus_error`` (xsim++) alone, whose parts by kind
    are ``xsim_plus_error_number`` and so on.

    Source: https://github.com/facebookresearch/LASER, ``source/xsim.py``; xsim++: Chen et al. (2023),
    https://arxiv.org/abs/2306.12907.
    """

    kind: ClassVar[str] = "bitext_mining"
    needs: ClassVar[str] = "rows {sentence1, sentence2}, translations of each other"

    columns: ClassVar = {}

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and no judgment."""
        return super().recognises(files) and not {"score", "label"} & files.columns

    def run(self, subject: Subject) -> Outcome:
        """Search the nearest sentences of the other language, in both directions."""
        first, second = self.sentences
        forward, backward = _both_ways(subject, first, second)
        scores = bitext_scores(forward.indices[:, 0], self.ids)
        texts = np.array(second, dtype=object)
        for margin in get_args(Margin):
            name = "xsim_error" if margin == "ratio" else f"xsim_error_{margin}"
            chosen = margin_choices(forward, backward.scores, margin)
            scores[name] = self._shares(texts[chosen] != texts)
        altered = self._distractors(set(second))
        if altered:
            pool = np.array([*second, *altered], dtype=object)
            forward, backward = _both_ways(subject, first, pool.tolist())
            chosen = margin_choices(forward, backward.scores)
            wrong, kinds = pool[chosen] != texts, [altered.get(text, "") for text in pool[chosen]]
            scores["xsim_plus_error"] = self._shares(wrong)
            for kind in sorted(set(altered.values())):
                scores[f"xsim_plus_error_{kind}"] = self._shares(np.array(kinds) == kind)
        return Outcome(scores)

    def _shares(self, marks: Bool[np.ndarray, " pairs"]) -> dict[str, float]:
        return dict(zip(self.ids, marks.astype(float).tolist(), strict=True))

    def _distractors(self, translations: set[str]) -> dict[str, str]:
        """Return the kind of each distractor, each text once; one that is a translation is none."""
        kinds: dict[str, str] = {}
        for item, row in zip(self.ids, self.rows, strict=True):
            for kind, texts in _by_kind(row.get("distractors") or [], item).items():
                for text in texts:
                    if text not in translations:
                        kinds.setdefault(text, kind)
        return kinds


def bitext_scores(found: Int64[np.ndarray, " pairs"], items: list[str]) -> PerQuery:
    """Score the row that was found for each row; its own is the right one."""
    right = found == np.arange(len(found))
    named = np.bincount(found, minlength=len(found))
    f1 = np.where(right, 2 / (1 + named), 0.0)
    return {
        "f1": dict(zip(items, f1.tolist(), strict=True)),
        "accuracy": dict(zip(items, right.astype(float).tolist(), strict=True)),
    }


def margin_choices(
    forward: SearchResult,
    backward: Float[np.ndarray, "candidates neighbours"],
    margin: Margin = "ratio",
) -> Int64[np.ndarray, " texts"]:
    r"""Choose among each text's nearest candidates the one that stands out most from the neighbourhoods.

    $a_i$ is the mean score of text i with its k nearest candidates, $c_j$ that of candidate j with its k nearest texts;
    ``ratio`` is $s_{ij} / \frac{a_i + c_j}{2}$, ``distance`` $s_{ij} - \frac{a_i + c_j}{2}$, ``absolute`` $s_{ij}$. A
    candidate that is near to every text loses by the first two. Of equal margins the nearer candidate wins.

    Args:
        forward: The k nearest candidates of each text, the nearest first.
        backward: Scores of each candidate with its k nearest texts.
        margin: Which of the three.

    Source: Artetxe and Schwenk (2019), https://arxiv.org/abs/1811.01136.
    """
    scores = forward.scores.astype(np.float64)
    usual: Float64[np.ndarray, "texts neighbours"] = (
        scores.mean(1, keepdims=True) + backward.mean(1, dtype=np.float64)[forward.indices]
    ) / 2
    margins = {"ratio": scores / usual, "distance": scores - usual, "absolute": scores}[margin]
    best: Int64[np.ndarray, " texts"] = forward.indices[np.arange(len(scores)), margins.argmax(1)]
    return best


def _both_ways(
    subject: Subject, texts: list[str], candidates: list[str]
) -> tuple[SearchResult, SearchResult]:
    """Return the nearest candidates of each text, and the nearest texts of each candidate."""
    number = min(NEIGHBOURS, len(texts))
    forward = subject.search(texts, candidates, number, "symmetric")
    return forward, subject.search(candidates, texts, number, "symmetric")


def _by_kind(given: Any, item: str) -> dict[str, list[str]]:  # noqa: ANN401 - a row's own
    """Check the distractors of a row."""
    kinds = given if isinstance(given, dict) else {ALTERED: given}
    for texts in kinds.values():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"distractors of item {item}", "are no list of texts", got=texts,
                cure="Give a list, or lists by their kind",
            )  # fmt: skip
    return kinds
