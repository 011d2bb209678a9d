r"""Matryoshka: an objective at several sizes of the same embeddings."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import row_divergences
from embedtrain.ops.infonce.nested import Sizes
from embedtrain.ops.row_blocks import RowLosses, Rows, candidate_masks, mean_over_queries
from embedtrain.ops.similarity import all_scores, first_columns
from embedtrain.section import Count
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs, TokenEmbeddings

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class Matryoshka(Objective):
    r"""Train embeddings whose first dimensions are embeddings too.

    $$\mathcal{L} = \sum_m w_m\, \mathcal{L}_\mathrm{inner}(x_{1:m} / \lVert x_{1:m} \rVert)$$

    Every prefix is normalised by itself where the model's similarity is cosine. The full size is one of them,
    with weight 1 where ``dims`` lacks it. With ``mode: heads`` the sizes are separate projections of a
    late-interaction model (``model.head_dims``, in that order), of which one is used later.

    With ``alignment`` the shorter sizes also learn from the full one how it ranks the batch,

    $$+\ \gamma \sum_{m < D} \frac{w_m}{B} \sum_i \mathrm{KL}\left(\mathrm{sg}\,\pi_D(i) \,\middle\|\, \pi_m(i)\right)$$

    $\pi_m(i)$ being the softmax of the scores at size m over the candidates of query i, over all ranks (known
    positives that are not positives of the row left out), divided by ``alignment_temperature``. No gradient flows to
    the full size; scores are held for one block of queries at a time.

    InfoNCE computes all prefixes in one pass, in which the inner products of a size continue those of the next
    smaller one (:mod:`embedtrain.ops.infonce.nested`). Any other objective runs once per size, as it is, so one
    that stores no scores stores none here.

    Source: Kusupati et al. (2022), https://arxiv.org/abs/2205.13147; separate heads: Jha et al. (2024),
    https://arxiv.org/abs/2408.16672 (jina-colbert-v2); alignment of scores: Zhuang et al. (2024),
    https://arxiv.org/abs/2410.13230 (Starbucks), whose retrieval code divides by the loss's own temperature.
    """

    name: Literal["matryoshka"] = "matryoshka"
    inner: "AnyObjective"
    """The objective that every size is trained on."""
    dims: tuple[Count, ...] = Field(min_length=1)
    """Sizes of the prefixes, besides the full one."""
    weights: tuple[PositiveFloat, ...] = ()
    """One per size; 1 each by default."""
    full_size: bool = True
    """Train the full size as well, where ``dims`` lacks it."""
    num_sampled: Count | None = None
    """Train the full size and so many of the others at each step, drawn from the batch's own ids: alike on
    every rank and when resumed. Null trains all."""
    alignment: NonNegativeFloat = 0.0
    """Gamma: the pull of shorter sizes' scores towards the full size's; 0 is none."""
    alignment_temperature: PositiveFloat = 0.05
    """Divides the scores in the alignment alone."""
    mode: Literal["prefix", "heads"] = "prefix"
    """Cut one vector, or take separate projections apart."""

    @model_validator(mode="after")
    def _one_weight_per_size(self) -> "Matryoshka":
        if self.weights and len(self.weights) != len(self.dims):
            raise ValueError("weights needs one number per size in dims")
        if len(set(self.dims)) != len(self.dims):
            raise ValueError("dims holds a size twice")
        if self.num_sampled is not None and self.mode == "heads":
            raise ValueError("num_sampled draws prefixes: heads are all trained")
        if self.alignment and (self.mode == "heads" or not self.full_size):
            raise ValueError(
                "alignment learns from the full size: it needs full_size and mode prefix"
            )
        if self.inner.uses_exits:
            raise ValueError("multi_exit goes around matryoshka, not into it")
        return self

    @property
    def uses_interaction(self) -> bool:
        """A vector that is cut is another vector to whatever reads it but the inner product."""
        return False

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        width = _width(outputs.query)
        sizes = self._sizes(outputs, width)
        loss, results = self._in_one_pass(outputs, sizes) or self._one_by_one(outputs, sizes)
        metrics: dict[str, Tensor] = {}
        for dim, result in results.items():
            metrics |= {f"{name}_{dim}": value for name, value in result.metrics.items()}
            metrics[f"loss_{dim}"] = result.loss.detach()
        shorter = [size for size in sizes if size[0] < width]
        if self.alignment and shorter:
            divergence = self._divergence(outputs, shorter)
            loss, metrics["divergence"] = loss + self.alignment * divergence, divergence.detach()
        return ObjectiveOutput(loss, metrics)

    def _divergence(
        self, outputs: RetrievalOutputs, shorter: list[tuple[int, float]]
    ) -> Float[Tensor, ""]:
        """Return the weighted sum over sizes of the mean divergence from the full size's ranking."""

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            positive, negative = candidate_masks(outputs, rows)
            with torch.no_grad():
                teacher = all_scores(query, document) / self.alignment_temperature
            divergences = []
            for dim, weight in shorter:
                cut = (self._cut(side, dim, outputs.similarity) for side in (query, document))
                student = all_scores(*cut) / self.alignment_temperature
                divergences.append(weight * row_divergences(student, teacher, positive | negative))
            return torch.stack(divergences).sum(0)

        return mean_over_queries(outputs, loss)

    def _in_one_pass(
        self, outputs: RetrievalOutputs, sizes: list[tuple[int, float]]
    ) -> tuple[Tensor, dict[int, ObjectiveOutput]] | None:
        if self.mode == "heads" or len(sizes) == 1:
            return None
        dims, weights = zip(*sorted(sizes), strict=True)
        normalize = outputs.similarity == "cosine"
        found = self.inner.at_prefixes(outputs, Sizes(dims, weights), normalize=normalize)
        return None if found is None else (found[0], dict(zip(dims, found[1], strict=True)))

    def _one_by_one(
        self, outputs: RetrievalOutputs, sizes: list[tuple[int, float]]
    ) -> tuple[Tensor, dict[int, ObjectiveOutput]]:
        results = {dim: self.inner(self._at(outputs, dim)) for dim, _ in sizes}
        losses = [weight * results[dim].loss for dim, weight in sizes]
        return torch.stack(losses).sum(), results

    def _sizes(self, outputs: RetrievalOutputs, width: int) -> list[tuple[int, float]]:
        """Return the sizes that this batch trains, with their weights, the full one first."""
        self._check(width)
        sizes = list(zip(self.dims, self.weights or (1.0,) * len(self.dims), strict=True))
        if self.mode == "heads":
            return sizes
        full = [size for size in sizes if size[0] == width]
        if self.full_size and not full:
            full = [(width, 1.0)]
        shorter = [size for size in sizes if size[0] != width]
        if self.num_sampled is not None and self.num_sampled < len(shorter):
            # A sum of ids does not depend on the order in which a rank holds the documents.
            generator = torch.Generator().manual_seed(int(outputs.relevance.document_ids.sum()))
            drawn = torch.randperm(len(shorter), generator=generator)[: self.num_sampled]
            shorter = [shorter[place] for place in sorted(drawn.tolist())]
        return full + shorter

    def _check(self, width: int) -> None:
        if self.mode == "heads" and width != sum(self.dims):
            raise UserError(
                "objective.dims",
                f"are not the model's head_dims, which have {width} dimensions together",
                got=self.dims,
                cure="Name the same sizes in the same order",
            )
        if max(self.dims) > width:
            raise UserError(
                "objective.dims",
                f"holds more than the model's {width} dimensions",
                got=max(self.dims),
                cure="Lower it",
            )

    def _at(self, outputs: RetrievalOutputs, dim: int) -> RetrievalOutputs:
        """Return the outputs at one size."""
        cut = partial(self._cut, dim=dim, similarity=outputs.similarity)
        return outputs.changed(cut, cut)

    def _cut(self, embeddings: Embeddings, dim: int, similarity: str) -> Embeddings:
        if self.mode == "prefix":
            return first_columns(embeddings, dim, normalize=similarity == "cosine")
        if isinstance(embeddings, TokenEmbeddings):
            return replace(embeddings, tokens=self._head(embeddings.tokens, dim))
        return self._head(embeddings, dim)

    def _head(self, vectors: Tensor, dim: int) -> Tensor:
        return torch.split(vectors, list(self.dims), dim=1)[self.dims.index(dim)]


def _width(embeddings: Embeddings) -> int:
    vectors = embeddings.tokens if isinstance(embeddings, TokenEmbeddings) else embeddings
    return vectors.shape[1]
