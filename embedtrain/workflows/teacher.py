"""What scores training rows: one teacher, or one mixed with a first stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from embedtrain.data.examples import Example
from embedtrain.evaluation.measures.second_stage import blend
from embedtrain.workflows.scored_so_far import Tally


@dataclass(frozen=True)
class Judged:
    """What a teacher says of a row: scores of its positives, then of its negatives; cosines between their features."""

    scores: Float64[np.ndarray, " documents"]
    gram: Float64[np.ndarray, " pairs"] | None = None


ScoreExamples = Callable[[Sequence[Example]], list[Judged]]


@dataclass(frozen=True)
class Teacher:
    """What scores, and a key that changes with its weights."""

    score: ScoreExamples
    key: str
    block: int
    """Rows that are scored and written at once."""
    describe: Callable[[], Mapping[str, object]] | None = None
    """Tells, at the end, what a reader of the scores should know of a language model."""
    tally: Callable[[], Tally] = dict
    """Counts what this process has done; a file that several processes wrote tells their sum."""


def mixed(teacher: Teacher, first: Teacher, share: float) -> Teacher:
    """Return ``share`` of a teacher's scores and the rest of a first stage's, both as z-scores of each row's documents.

    It is the mixture that ``evaluate --rerank --blend`` measures. A row whose documents one of the two scores alike
    gets the other's order.
    """

    def score(examples: Sequence[Example]) -> list[Judged]:
        both = zip(first.score(examples), teacher.score(examples), strict=True)
        return [replace(judged, scores=_mix(own, judged, share)) for own, judged in both]

    key = f"{teacher.key}\n{first.key}\n{share}"
    return replace(teacher, score=score, key=key)


def _mix(first: Judged, second: Judged, share: float) -> Float64[np.ndarray, " documents"]:
    one, other = (judged.scores[None].astype(np.float32) for judged in (first, second))
    mixture: Float64[np.ndarray, " documents"] = blend(one, other, share)[0].astype(np.float64)
    return mixture
