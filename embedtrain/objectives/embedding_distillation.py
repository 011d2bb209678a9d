r"""Embedding distillation: the student's vectors, or their geometry, become the guide's."""

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import group_columns
from embedtrain.ops.row_blocks import RowLosses, Rows, mean_over_queries
from embedtrain.ops.similarity import all_scores, single_vectors
from embedtrain.packed import upload
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs, Side


class EmbeddingDistillation(Objective):
    r"""Match a guide's embeddings of the queries and of the documents they brought.

    - ``mse``: $\frac{1}{B} \sum_i \|q_i - \hat q_i\|^2 + \frac{1}{|G_i|} \sum_{c \in G_i} \|d_c - \hat d_c\|^2$,
    - ``cosine``: the same with $1 - \cos$ in place of the squared distance,
    - ``similarity``: $\frac{1}{B N} \sum_{ij} (s_{ij} - \hat s_{ij})^2$ over all queries and documents of the batch,
      which asks for the guide's geometry and not for its axes: any dimension will do, and late interaction too.

    The vectors of ``mse`` and ``cosine`` must have the guide's dimension; ``model.projection`` adds a layer for
    it, which the exported model keeps. The guide should use the same prompts as the student.

    With ``mse`` on one side of texts alone, no pairs and no negatives, this is LEAF (recipe ``distill/leaf``).

    Source: Kim et al. (2023), EmbedDistill, https://arxiv.org/abs/2301.12005; LEAF: Vujanic and Rueckstiess (2025),
    https://arxiv.org/abs/2509.12539.
    """

    name: Literal["embedding_distillation"] = "embedding_distillation"
    uses_guide: ClassVar[bool] = True
    kind: Literal["mse", "cosine", "similarity"] = "mse"
    """What is matched."""
    sides: tuple[Side, ...] = ("query", "document")
    """Whose vectors; ``[query]`` leaves documents to a guide that keeps encoding them. Of rows of one text
    (``columns: {text: ...}``) it says whether they are queries or documents; the other side is not encoded."""

    @model_validator(mode="after")
    def _has_a_side(self) -> "EmbeddingDistillation":
        if not self.sides or (self.kind == "similarity" and len(set(self.sides)) < 2):
            raise ValueError("give a side; kind similarity compares both")
        return self

    @property
    def read_sides(self) -> tuple[Side, ...]:
        """``sides``; kind similarity compares both."""
        return self.sides

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        guide = outputs.guide
        if guide is None:
            cure = "Add guide: {model: ...}"
            raise UserError("objective", "embedding_distillation needs a guide", cure=cure)
        if self.kind == "similarity":
            expected_query, expected_document = guide.query, guide.document

            def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
                expected = expected_query[rows] @ expected_document.T
                return (all_scores(query, document) - expected).square().mean(1)

            return ObjectiveOutput(mean_over_queries(outputs, loss), {})
        query, document = _vectors(outputs, guide.query.shape[1])
        total = query.new_zeros(())
        metrics = {}
        if "query" in self.sides:
            metrics["query_distance"] = self._distance(query, guide.query).mean()
            total = total + metrics["query_distance"]
        if "document" in self.sides:
            found = group_columns(outputs.relevance.on_host)
            columns = upload(found, query.device)
            mask = columns >= 0
            rows = columns.clamp_min(0)
            distances = self._distance(document[rows], guide.document[rows]) * mask
            metrics["document_distance"] = (distances.sum(1) / mask.sum(1)).mean()
            total = total + metrics["document_distance"]
        return ObjectiveOutput(total, {name: value.detach() for name, value in metrics.items()})

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher = teacher.to(student.dtype)
        if self.kind == "cosine":
            return 1 - torch.nn.functional.cosine_similarity(student, teacher, dim=-1)
        return (student - teacher).square().sum(-1)


def _vectors(outputs: RetrievalOutputs, guide_dim: int) -> tuple[Tensor, Tensor]:
    place, cure = "objective.kind", "Use kind: similarity"
    query, document = single_vectors(outputs.query, outputs.document, place, cure)
    if query.shape[1] != guide_dim:
        raise UserError(
            "model",
            f"gives vectors of another dimension than the guide's {guide_dim}",
            got=query.shape[1],
            cure=f"Set model.projection={guide_dim}, or use kind: similarity",
        )
    return query, document
