r"""Labelled positives: an objective on those rows only whose score makes the pair a positive one."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import model_validator

from embedtrain.objectives.base import Objective
from embedtrain.ops.scored_pairs import labels_of
from embedtrain.ops.similarity import take
from embedtrain.types import ObjectiveOutput, RetrievalOutputs

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class LabelledPositives(Objective):
    r"""Apply an objective to the queries whose first document scores at least so much.

    $$\mathcal{L} = \frac{|P|}{B}\, \mathcal{L}_\mathrm{inner}(P), \quad P = \{i : y_i \ge t\}$$

    The other rows' documents stay candidates, so a pair that is not alike serves as negatives. With InfoNCE it is
    the in-batch term of AnglE. The mean still runs over all queries, so that ranks agree with one process.
    """

    name: Literal["labelled_positives"] = "labelled_positives"
    inner: "AnyObjective"
    """What the positive pairs are trained on."""
    threshold: float = 1.0
    """t, in the scores' own scale after ``score_range``."""

    @model_validator(mode="after")
    def _one_direction(self) -> "LabelledPositives":
        if self.inner.needs_all_queries or self.inner.uses_guide or self.inner.uses_exits:
            raise ValueError("labelled_positives needs an inner objective of own queries only")
        return self

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        relevance = outputs.relevance
        kept = (labels_of(outputs)[relevance.positives[:, 0]] >= self.threshold).nonzero()[:, 0]
        num_queries = len(outputs.query)
        vectors = outputs.query if isinstance(outputs.query, torch.Tensor) else outputs.query.tokens
        share = vectors.new_tensor(len(kept) / num_queries)
        if not len(kept):
            return ObjectiveOutput(vectors.sum() * 0, {"positive_ratio": share})
        # Documents of rows that are left out belong to nobody here.
        places = torch.full((int(relevance.owners.max()) + 1,), num_queries, device=kept.device)
        places[kept] = torch.arange(len(kept), device=kept.device)
        gram = relevance.teacher_gram
        part = replace(
            outputs,
            query=take(outputs.query, kept),
            relevance=replace(
                relevance,
                query_ids=relevance.query_ids[kept],
                owners=places[relevance.owners],
                positives=relevance.positives[kept],
                known_positives=relevance.known_positives[kept],
                teacher_gram=None if gram is None else gram[kept],
            ),
        )
        result = self.inner(part)
        return ObjectiveOutput(share * result.loss, result.metrics | {"positive_ratio": share})
