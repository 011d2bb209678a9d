r"""InfoNCE at several prefixes of the same embeddings, in one pass over the scores (Matryoshka).

The inner products of a prefix continue those of the next shorter one,

$$P_{m'} = P_m + Q_{m:m'} D_{m:m'}^\top, \qquad s^{(m)}_{ij} = a^{(m)}_i\, b^{(m)}_j\, P_{m,ij},$$

with a and b one over the prefixes' norms, and the derivative by P of a coordinate is the sum over the prefixes
that hold it. So all sizes together cost the three GEMMs of the longest, where one call per size costs
$\sum_m m / d$ times as much. Each size keeps a tile of scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.ops.exponentials import exponentiate
from embedtrain.ops.infonce.blocks import Chunk, cut
from embedtrain.ops.infonce.directions import all_documents
from embedtrain.ops.infonce.plan import tile_rows
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, summarise, weigh_rows
from embedtrain.ops.products import as_fine_as
from embedtrain.packed import upload

SMALLEST_NORM = 1e-12
"""As in ``torch.nn.functional.normalize``."""


class Sizes(NamedTuple):
    """Prefixes, ascending, each with the weight of its loss; the last may be the whole vector."""

    dims: tuple[int, ...]
    weights: tuple[float, ...]

    def segments(self) -> list[tuple[int, int]]:
        """Return the columns that each prefix adds to the one before."""
        return list(zip((0, *self.dims[:-1]), self.dims, strict=True))


class NestedOutput(NamedTuple):
    """The weighted sum of the losses, with its gradient, and each size's own output, without."""

    loss: Float[Tensor, ""]
    outputs: list[InfoNCEOutput]


@dataclass(frozen=True)
class Inputs:
    """Embeddings in the type of logits, and one over the norms of their prefixes."""

    query: Float[Tensor, "queries dim"]
    document: Float[Tensor, "documents dim"]
    query_scale: Float[Tensor, "sizes queries"]
    document_scale: Float[Tensor, "sizes documents"]


@dataclass(frozen=True)
class NestedGradients(Inputs):
    """Derivatives of the weighted sum by each input."""

    temperature: Float[Tensor, " queries"]


def can_be_nested(problem: InfoNCEProblem) -> bool:
    """Whether one pass can do it: query-to-document against all documents, or against those of others."""
    options = problem.options
    return (
        options.directions == ("query_to_document",)
        and options.negatives != "own"
        and not options.has_margin
        and options.hardness == 0.0
        and options.label_smoothing == 0.0
    )


def infonce_nested(
    problem: InfoNCEProblem,
    sizes: Sizes,
    *,
    normalize: bool,
    compute: "ComputeSizes | None" = None,
) -> NestedOutput:
    """Compute InfoNCE at every size, as :func:`embedtrain.ops.infonce.loss.infonce` would on the cut vectors.

    Args:
        problem: At the full size; must be one that :func:`can_be_nested`.
        sizes: Which prefixes.
        normalize: Divide prefixes by their norms. The whole vector is taken as it is.
        compute: How, where not in tiles of library GEMMs.
    """
    query, document = problem.query.to(problem.dtype), problem.document.to(problem.dtype)
    scales = [_scales(vectors, sizes, normalize=normalize) for vectors in (query, document)]
    inputs = (query, document, *scales, problem.temperature)
    found = _Nested.apply(*inputs, problem, sizes, compute or compute_chunked)  # type: ignore[no-untyped-call]
    each = [InfoNCEOutput(*figures) for figures in zip(*[iter(found[1:])] * 5, strict=True)]
    return NestedOutput(found[0], each)


def _scales(
    vectors: Float[Tensor, "texts dim"], sizes: Sizes, *, normalize: bool
) -> Float[Tensor, "sizes texts"]:
    """Return one over the norm of each prefix."""
    if not normalize:
        return vectors.new_ones(len(sizes.dims), len(vectors))
    parts = [vectors[:, start:stop].square().sum(1) for start, stop in sizes.segments()]
    scales = torch.stack(parts).cumsum(0).sqrt().clamp_min(SMALLEST_NORM).reciprocal()
    if sizes.dims[-1] == vectors.shape[1]:
        scales = torch.cat([scales[:-1], torch.ones_like(scales[-1:])])
    return scales


class _Nested(torch.autograd.Function):
    """Computes the gradients beside the loss, while the tiles are there."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch documents no type
        query: Tensor,
        document: Tensor,
        query_scale: Tensor,
        document_scale: Tensor,
        _temperature: Tensor,
        problem: InfoNCEProblem,
        sizes: Sizes,
        compute: "ComputeSizes",
    ) -> tuple[Tensor, ...]:
        inputs = Inputs(query, document, query_scale, document_scale)
        wanted = any(ctx.needs_input_grad)
        with as_fine_as(problem.query.dtype, problem.query.device):
            found = compute(inputs, problem.detached(), sizes, wanted)
        losses, figures, ctx.gradients = found
        outputs = [summarise(loss, some) for loss, some in zip(losses, figures, strict=True)]
        flat = [value for output in outputs for value in output]
        ctx.mark_non_differentiable(*flat)
        weights = upload(torch.tensor(sizes.weights, dtype=losses.dtype), losses.device)
        return (losses @ weights, *flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        found: NestedGradients = ctx.gradients
        parts = (found.query, found.document, found.query_scale, found.document_scale)
        return (*(part * by_loss for part in (*parts, found.temperature)), None, None, None)


ComputeSizes = Callable[
    [Inputs, InfoNCEProblem, Sizes, bool],
    tuple[Float[Tensor, " sizes"], list[RowFigures], NestedGradients | None],
]


def compute_chunked(
    inputs: Inputs, problem: InfoNCEProblem, sizes: Sizes, wanted: bool
) -> tuple[Float[Tensor, " sizes"], list[RowFigures], NestedGradients | None]:
    """Return losses, figures and, where wanted, the gradients of the weighted sum."""
    number, (queries, dim), documents = len(sizes.dims), inputs.query.shape, len(inputs.document)
    # Beside a tile per size there is one of products and one to work in.
    width = documents * (number + 2)
    rows = tile_rows(queries, width, dim, problem.dtype.itemsize, problem.query.device)
    block, eligible, known = all_documents(problem, inputs.document, rows)
    buffers = inputs.query.new_empty(number + 2, rows * documents)
    gradients = None
    if wanted:
        gradients = NestedGradients(
            torch.zeros_like(inputs.query),
            torch.zeros_like(inputs.document),
            torch.zeros_like(inputs.query_scale),
            torch.zeros_like(inputs.document_scale),
            torch.zeros_like(problem.temperature),
        )
    losses, none = inputs.query.new_zeros(number), torch.zeros_like(known)
    figures = [
        RowFigures(
            torch.empty_like(problem.temperature),
            torch.empty_like(problem.temperature),
            eligible,
            known,
            none,
        )
        for _ in sizes.dims
    ]
    for chunk in cut(problem, rows):
        count = len(chunk.first)
        tiles = [buffer[: count * documents].view(count, documents) for buffer in buffers]
        visit = _Visit(inputs, problem, sizes, chunk, block.excluded(chunk), tiles, gradients)
        for k in range(number):
            losses[k] += visit.size(k, figures[k])
        visit.add_steps()
    return losses, figures, gradients


@dataclass(frozen=True)
class _Visit:
    """One chunk of queries against all documents; sizes must be visited in ascending order."""

    inputs: Inputs
    problem: InfoNCEProblem
    sizes: Sizes
    chunk: Chunk
    excluded: Tensor
    tiles: list[Tensor]
    """Products so far, a tile to work in, and one per size."""
    gradients: NestedGradients | None

    def size(self, k: int, figures: RowFigures) -> Float[Tensor, ""]:
        """Return the chunk's loss at a size, note its figures and leave the derivative by P in its tile."""
        chunk, rows, problem = self.chunk, self.chunk.rows, self.problem
        products, tile = self._extend(k), self.tiles[2 + k]
        by_query, by_document = self.inputs.query_scale[k, rows], self.inputs.document_scale[k]
        torch.mul(products, (by_query * chunk.inverse)[:, None], out=tile).mul_(by_document)
        tile.view(-1).index_fill_(0, self.excluded, -torch.inf)
        maximum, total = exponentiate(tile)
        listed, used = problem.positives[rows].clamp_min(0), problem.positive_is_used[rows]
        positives = products.gather(1, listed) * by_query[:, None] * by_document[listed]
        nothing = torch.zeros_like(maximum)[:, None]
        sums = RowSums(
            (maximum + total.log())[:, None], positives, problem.temperature[rows], nothing
        )
        figures.best[rows] = positives.masked_fill(~used, -torch.inf).amax(1)
        torch.div(maximum, chunk.inverse, out=figures.hardest[rows])
        wanted = self.gradients is not None
        options, share = problem.options, problem.share
        loss, slopes = weigh_rows(sums, nothing, used, share, options, wanted=wanted)
        if self.gradients is None or slopes is None:
            return loss
        factor = slopes.negatives[:, 0] / total.clamp_min(1.0)  # 0 only where nothing is left
        tile.mul_((factor * chunk.inverse * self.sizes.weights[k])[:, None])
        self._derive(k, listed, slopes.positives * self.sizes.weights[k])
        self.gradients.temperature[rows] += slopes.temperature * self.sizes.weights[k]
        return loss

    def _extend(self, k: int) -> Float[Tensor, "rows documents"]:
        """Add the columns that a size has more than the last one to the inner products."""
        start, stop = self.sizes.segments()[k]
        query, document = self.chunk.query[:, start:stop], self.inputs.document[:, start:stop]
        products = self.tiles[0]
        if k == 0:
            return torch.mm(query, document.T, out=products)
        return torch.addmm(products, query, document.T, out=products)

    def _derive(self, k: int, listed: Tensor, by_positive: Tensor) -> None:
        """Turn the derivative by the similarities of negatives into that by all products, and add the scales'."""
        assert self.gradients is not None
        rows, products, tile = self.chunk.rows, self.tiles[0], self.tiles[2 + k]
        by_query, by_document = self.inputs.query_scale[k, rows], self.inputs.document_scale[k]
        share = torch.mul(tile, products, out=self.tiles[1])
        from_negatives = share @ by_document
        # <G, s> / temperature, for s divides by it; that of the positives stands in the slopes.
        self.gradients.temperature[rows] -= from_negatives * by_query * self.chunk.inverse
        of_positives = by_positive * products.gather(1, listed)
        self.gradients.query_scale[k, rows] += from_negatives + (
            of_positives * by_document[listed]
        ).sum(1)
        gradient = self.gradients.document_scale[k]
        gradient.addmv_(share.T, by_query)
        gradient.index_add_(0, listed.flatten(), (of_positives * by_query[:, None]).flatten())
        tile.scatter_add_(1, listed, by_positive)
        tile.mul_(by_query[:, None]).mul_(by_document)

    def add_steps(self) -> None:
        """Add the gradients of the embeddings: the columns of a segment learn from all sizes that hold them."""
        if self.gradients is None:
            return
        segments, summed = self.sizes.segments(), self.tiles[-1]
        for k in reversed(range(len(segments))):
            if summed is not self.tiles[2 + k]:
                summed.add_(self.tiles[2 + k])
            columns = slice(*segments[k])
            query, document = self.chunk.query[:, columns], self.inputs.document[:, columns]
            self.gradients.query[self.chunk.rows, columns] += summed @ document
            self.gradients.document[:, columns].addmm_(summed.T, query)
