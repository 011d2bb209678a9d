"""What a stage of a pipeline measures."""

from typing import Literal

from pydantic import Field, model_validator

from embedtrain.precision import Precision
from embedtrain.retrieval.fusion import Rule, Weight
from embedtrain.section import Count, Section
from embedtrain.workflows.evaluate.systems import Fusing


class EvaluateStage(Section):
    """As ``embedtrain evaluate``; leaves ``scores.json`` behind."""

    model: str
    """``stage:NAME/model``, a folder or a Hub id; with ``rerank`` also ``bm25``."""
    path: str
    """A BEIR folder, or ``python_docs``."""
    split: str = "test"
    rerank: str | None = None
    """What orders the results anew: ``stage:NAME/model``, a folder or a Hub id; the test is with the first stage
    then."""
    top: Count = 100
    """With ``rerank``: results of a query that it orders."""
    blend: float = Field(default=1.0, ge=0, le=1)
    """With ``rerank``: share of its scores; the rest is the first stage's, both as z-scores of the query."""
    fused_with: tuple[str, ...] = ()
    """Other systems whose results become one list with the model's: models, ``bm25``, ``run:FILE``."""
    fuse: Rule | Literal["tuned"] = "sum"
    """By which rule; ``tuned`` learns the weights of ``sum``."""
    weights: tuple[Weight, ...] | None = None
    """One of each system, the model's first."""
    tune_on: str | None = None
    """Split that ``tuned`` learns on; null learns on folds of the queries themselves."""
    baseline: str | None = None
    """``stage:NAME/scores.json`` of an earlier evaluation, for a paired test."""
    precision: Precision = "auto"
    """What texts are encoded in: fp32, bf16 or fp16; auto is bf16 on a GPU that has it, fp32 on a CPU."""

    @model_validator(mode="after")
    def _fuses_as_it_says(self) -> "EvaluateStage":
        told = self.fuse != "sum" or self.weights is not None or self.tune_on is not None
        if told and not self.fused_with:
            raise ValueError("fuse, weights and tune_on need systems in fused_with")
        if self.blend != 1 and self.rerank is None:
            raise ValueError("blend needs rerank, with whose scores the first stage's are mixed")
        self.fusing()
        return self

    def fusing(self) -> Fusing:
        """Return what is fused, and how.

        Raises:
            UserError: If it does not go together.
        """
        found = Fusing(self.fused_with, self.fuse, self.weights, tune_on=self.tune_on)
        found.fusion()
        return found
