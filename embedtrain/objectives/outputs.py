r"""Outputs: an objective on what is left of vectors that are stored as bytes, three levels or bits."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from embedtrain.contract.stored import StoredOutputs
from embedtrain.errors import UserError
from embedtrain.objectives.base import Objective
from embedtrain.ops.groups import row_divergences
from embedtrain.ops.row_blocks import RowLosses, Rows, candidate_masks, mean_over_queries
from embedtrain.ops.similarity import all_scores, first_columns
from embedtrain.ops.straight_through import TYPICAL_COSINE, Through, straight_through
from embedtrain.section import Count
from embedtrain.types import (
    Change,
    Embeddings,
    Format,
    ObjectiveOutput,
    RetrievalOutputs,
    TokenEmbeddings,
)

if TYPE_CHECKING:
    from embedtrain.objectives.base import AnyObjective


class Outputs(Objective):
    r"""Train vectors for how they are stored: the loss sees documents as codes, through which the gradient passes.

    $$\mathcal{L} = w\, \mathcal{L}_\mathrm{inner}(q, d) + \sum_{f, m} \left( \mathcal{L}_\mathrm{inner}(q_m, Q_f(d_m))
    + \frac{\gamma}{B} \sum_i \mathrm{KL}\left(\mathrm{sg}\,\pi(i) \,\middle\|\, \pi_{f, m}(i)\right) \right)$$

    over the formats f of ``quantize`` and the sizes m: vectors are cut, normalised, then quantised
    (:mod:`embedtrain.ops.straight_through`). $\pi$ is the softmax of float scores over the candidates of query i, over
    all ranks (known positives that are not positives of the row left out), divided by ``temperature``; no gradient
    flows to it. Documents are stored, queries stay floats (``asymmetric``); ``symmetric`` compares codes with
    codes, as Hamming distance does; ``both`` adds up the two.

    Codes lie at an angle to their vectors that is alike for all, which shrinks scores as a higher temperature would:
    inside the loss codes are that much longer (1.25 for bits), so that one temperature suits floats and codes.

    Nothing is counted over a batch, so chunks, ranks, and accumulated steps change nothing. The model that comes of it
    gives floats: ``--quantize`` stores them as it was trained for.

    Source: output quantisation in training as the cards of several models name it; the method as it stands here, with its
    scale and its self-distillation, is ours. Straight-through gradients: Bengio et al. (2013),
    https://arxiv.org/abs/1308.3432.
    """

    name: Literal["outputs"] = "outputs"
    inner: "AnyObjective"
    """What floats and codes are trained on."""
    quantize: Format | Annotated[tuple[Format, ...], Field(min_length=1)] = "binary"
    """How vectors will be stored; several are trained at once."""
    scoring: Literal["asymmetric", "symmetric", "both"] = "asymmetric"
    """Whether queries stay floats. Choose ``both`` where candidates are found by Hamming distance; late interaction
    is asymmetric."""
    through: Through = "clipped"
    """The gradient through the rounding: all of it, none where a coordinate is large already, or a tanh's (bits only)."""
    matryoshka: tuple[Count, ...] = ()
    """Sizes that are quantised too, besides the full one."""
    float_weight: NonNegativeFloat = 1.0
    """w: of the loss on floats, without which they get worse as codes get better."""
    self_distillation: NonNegativeFloat = 1.0
    """Gamma: codes learn from floats how they rank the batch; it needs no labels. 0 is none."""
    temperature: PositiveFloat = 0.05
    """Divides the scores in the self-distillation alone."""

    @model_validator(mode="after")
    def _fits(self) -> "Outputs":
        if len(set(self.formats)) != len(self.formats):
            raise ValueError("quantize names a format twice")
        if len(set(self.matryoshka)) != len(self.matryoshka):
            raise ValueError("matryoshka holds a size twice")
        if self.through == "tanh" and self.formats != ("binary",):
            raise ValueError("through: tanh is a gradient of bits alone")
        if self.inner.uses_exits:
            raise ValueError("multi_exit goes around outputs, not into it")
        return self

    @property
    def uses_interaction(self) -> bool:
        """False: a network that scores pairs is no inner product of codes."""
        return False

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats, as a tuple."""
        return (self.quantize,) if isinstance(self.quantize, str) else self.quantize

    def stored(self, width: int) -> StoredOutputs:
        """Return what vectors of ``width`` dimensions are trained to be stored as."""
        smaller = sorted({size for size in self.matryoshka if size < width}, reverse=True)
        return StoredOutputs(quantize=self.formats, dims=(width, *smaller), scoring=self.scoring)

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        self._check(outputs)
        metrics: dict[str, Tensor] = {}
        losses = []
        if self.float_weight:
            whole = self.inner(outputs)
            losses.append(self.float_weight * whole.loss)
            metrics |= {**whole.metrics, "loss_float": whole.loss.detach()}
        for name, query, document in self._stored(_values(outputs.query).shape[1]):
            found = self.inner(outputs.changed(query, document))
            losses.append(found.loss)
            metrics |= {f"{key}_{name}": value for key, value in found.metrics.items()}
            metrics[f"loss_{name}"] = found.loss.detach()
            if self.self_distillation:
                divergence = self._divergence(outputs, query, document)
                losses.append(self.self_distillation * divergence)
                metrics[f"divergence_{name}"] = divergence.detach()
        if "binary" in self.formats:
            metrics["bit_balance"] = bit_balance(_values(outputs.document).detach())
        return ObjectiveOutput(torch.stack(losses).sum(), metrics)

    def _stored(self, width: int) -> Iterator[tuple[str, Change, Change]]:
        """Yield each size, format and way of scoring: its name in the log, and what it makes of queries and documents."""
        ways = ("asymmetric", "symmetric") if self.scoring == "both" else (self.scoring,)
        for dim in (width, *(size for size in self.matryoshka if size != width)):
            cut = partial(first_columns, dim=dim, normalize=True)
            for kind in self.formats:
                code = partial(self._code, kind=kind, dim=dim)
                for way in ways:
                    end = f"_{way}" if self.scoring == "both" else ""
                    yield f"{kind}_{dim}{end}", code if way == "symmetric" else cut, code

    def _code(self, embeddings: Embeddings, kind: Format, dim: int) -> Embeddings:
        short = first_columns(embeddings, dim, normalize=True)
        values = straight_through(_values(short), kind, self.through) / TYPICAL_COSINE[kind]
        return replace(short, tokens=values) if isinstance(short, TokenEmbeddings) else values

    def _divergence(
        self, outputs: RetrievalOutputs, of_query: Change, of_document: Change
    ) -> Float[Tensor, ""]:
        """Return the mean divergence of codes' ranking from that of whole floats."""

        def loss(query: Embeddings, document: Embeddings, rows: Rows) -> RowLosses:
            positive, negative = candidate_masks(outputs, rows)
            with torch.no_grad():
                teacher = all_scores(query, document) / self.temperature
            student = all_scores(of_query(query), of_document(document)) / self.temperature
            return row_divergences(student, teacher, positive | negative)

        return mean_over_queries(outputs, loss)

    def _check(self, outputs: RetrievalOutputs) -> None:
        if outputs.similarity != "cosine":
            problem = (
                "outputs stands for vectors of length 1, and the model compares by inner products"
            )
            raise UserError("objective", problem, cure="Set model.similarity=cosine")
        if isinstance(outputs.query, TokenEmbeddings) and self.scoring != "asymmetric":
            problem = (
                "leaves many tokens with the same score, so that which of them learns is chance"
            )
            cure = "Use asymmetric: indexes of token bits take queries of floats"
            raise UserError("objective.scoring", problem, got=self.scoring, cure=cure)
        width = _values(outputs.query).shape[1]
        if any(dim > width for dim in self.matryoshka):
            problem = f"are more than the model's {width} dimensions"
            raise UserError("objective.matryoshka", problem, got=list(self.matryoshka))


def bit_balance(vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, ""]:
    """Return how far the shares of positive coordinates lie from one half, averaged over dimensions: 0 is best."""
    return ((vectors >= 0).float().mean(0) - 0.5).abs().mean()


def _values(embeddings: Embeddings) -> Tensor:
    return embeddings.tokens if isinstance(embeddings, TokenEmbeddings) else embeddings
