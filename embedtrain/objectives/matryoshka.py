r"""Matryoshka: an objective at several sizes of the same embeddings."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.types import Embeddings, ObjectiveOutput, RetrievalOutputs, TokenEmbeddings

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class Matryoshka(Objective):
    r"""Train embeddings whose first dimensions are embeddings too.

    $$\mathcal{L} = \sum_m w_m\, \mathcal{L}_\mathrm{inner}(x_{1:m} / \lVert x_{1:m} \rVert)$$

    Every prefix is normalised by itself where the model's similarity is cosine. With ``mode: heads`` the
    sizes are separate projections of a late-interaction model (``model.head_dims``, in that order), of which
    one is used later.

    Source: Kusupati et al. (2022), https://arxiv.org/abs/2205.13147; separate heads: Jha et al. (2024),
    https://arxiv.org/abs/2408.16672 (jina-colbert-v2).
    """

    name: Literal["matryoshka"] = "matryoshka"
    inner: "AnyObjective"
    """The objective that every size is trained on."""
    dims: tuple[PositiveInt, ...] = Field(min_length=1)
    """Sizes. Add the full dimension if it is to be trained as well, which it nearly always is."""
    weights: tuple[PositiveFloat, ...] = ()
    """One per size; 1 each by default."""
    mode: Literal["prefix", "heads"] = "prefix"
    """Cut one vector, or take separate projections apart."""

    @model_validator(mode="after")
    def _one_weight_per_size(self) -> "Matryoshka":
        if self.weights and len(self.weights) != len(self.dims):
            raise ValueError("weights needs one number per size in dims")
        if len(set(self.dims)) != len(self.dims):
            raise ValueError("dims holds a size twice")
        return self

    @property
    def needs_all_queries(self) -> bool:
        """Whether the inner objective needs them."""
        return self.inner.needs_all_queries

    @property
    def uses_guide(self) -> bool:
        """Whether the inner objective uses one."""
        return self.inner.uses_guide

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        weights = self.weights or (1.0,) * len(self.dims)
        losses: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        for place, (dim, weight) in enumerate(zip(self.dims, weights, strict=True)):
            result = self.inner(self._at(outputs, place))
            losses.append(weight * result.loss)
            metrics |= {f"{name}_{dim}": value for name, value in result.metrics.items()}
            metrics[f"loss_{dim}"] = result.loss.detach()
        return ObjectiveOutput(torch.stack(losses).sum(), metrics)

    def _at(self, outputs: RetrievalOutputs, place: int) -> RetrievalOutputs:
        """Return the outputs at one size."""
        everyone = outputs.all_queries
        normalize = outputs.similarity == "cosine" and self.mode == "prefix"

        def cut(embeddings: Embeddings) -> Embeddings:
            if isinstance(embeddings, TokenEmbeddings):
                tokens = self._columns(embeddings.tokens, place, normalize=normalize)
                return replace(embeddings, tokens=tokens)
            return self._columns(embeddings, place, normalize=normalize)

        return replace(
            outputs,
            query=cut(outputs.query),
            document=cut(outputs.document),
            all_queries=everyone and replace(everyone, embeddings=cut(everyone.embeddings)),
        )

    def _columns(self, vectors: Tensor, place: int, *, normalize: bool) -> Tensor:
        width, dim = vectors.shape[1], self.dims[place]
        if self.mode == "heads":
            if width != sum(self.dims):
                raise UserError(
                    "objective.dims",
                    f"are not the model's head_dims, which have {width} dimensions together",
                    got=self.dims,
                    cure="Name the same sizes in the same order",
                )
            return torch.split(vectors, list(self.dims), dim=1)[place]
        if dim > width:
            raise UserError(
                "objective.dims",
                f"holds more than the model's {width} dimensions",
                got=dim,
                cure="Lower it",
            )
        return F.normalize(vectors[:, :dim], dim=1) if normalize else vectors[:, :dim]
