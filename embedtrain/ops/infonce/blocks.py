"""The directions of InfoNCE as blocks of logits that one chunk of queries visits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.ops.infonce.pairs import Matches
from embedtrain.ops.infonce.problem import InfoNCEProblem
from embedtrain.ops.products import add_product, multiply, multiply_into
from embedtrain.packed import upload

Candidates = Float[Tensor, "columns dim"]
Anchors = Float[Tensor, "rows dim"]
Tile = Float[Tensor, "rows columns"]
Listed = Int64[Tensor, "rows listed"]

Side = Literal["query", "document"]


@dataclass(frozen=True)
class Gradients:
    """Where derivatives are summed up, ``None`` where none is wanted; shared queries share a buffer."""

    query: Float[Tensor, "queries dim"] | None
    document: Float[Tensor, "documents dim"] | None
    all_query: Float[Tensor, "all_queries dim"] | None
    temperature: Float[Tensor, " queries"] | None


@dataclass(frozen=True)
class Chunk:
    """The queries that are visited together, with what all blocks ask of them."""

    index: int
    rows: slice
    query: Anchors
    first: Int64[Tensor, " rows"]
    """Column of each query's first positive."""
    inverse: Float[Tensor, " rows"]
    """One over the temperature."""


class Filled(NamedTuple):
    """What stands in a tile before the softmax."""

    scale: Float[Tensor, " rows"]
    """Factor of the logits over the similarities."""
    pending: Float[Tensor, " rows"] | None
    """The same where the tile still holds similarities; None where it holds logits."""


@runtime_checkable
class Block(Protocol):
    """The negatives of one direction."""

    @property
    def width(self) -> int:
        """Number of columns of a tile."""

    @property
    def operands(self) -> torch.dtype:
        """The type in which the exponentials of a tile are multiplied."""

    def fill(self, tile: Tensor, chunk: Chunk) -> Filled:
        """Write the scores of all candidates."""

    def excluded(self, chunk: Chunk) -> Int64[Tensor, " entries"]:
        """Return the entries of the flattened tile that are no negatives."""

    def add_steps(self, tile: Tensor, chunk: Chunk, factor: Tensor, gradients: Gradients) -> None:
        """Add what ``factor * tile``, the derivative by the similarities, gives to the embeddings."""


@dataclass(frozen=True)
class TileBlock:
    """A direction whose candidates are all documents or all queries: one GEMM per tile."""

    side: Side
    target: Literal["document", "all_query"]
    document: Float[Tensor, "documents dim"]
    candidate: Float[Tensor, "candidates dim"]
    always: Int64[Tensor, "queries always"]
    """Columns that are no negatives, on the CPU as are the matches; unused entries repeat a used one."""
    matches: tuple[Matches, ...]
    hardness: float = 0.0

    @property
    def width(self) -> int:  # noqa: D102
        return len(self.candidate)

    @property
    def operands(self) -> torch.dtype:  # noqa: D102
        return self.candidate.dtype

    def _anchor(self, chunk: Chunk) -> Anchors:
        if self.side == "query":
            return chunk.query
        return self.document[chunk.first].to(chunk.query.dtype)

    def fill(self, tile: Tensor, chunk: Chunk) -> Filled:  # noqa: D102
        scale, anchor = chunk.inverse + self.hardness, self._anchor(chunk)
        if self.operands == tile.dtype:
            torch.mm(anchor * scale[:, None], self.candidate.T, out=tile)
            return Filled(scale, None)
        # Rounding the scaled anchors would cost the logits what the embeddings' own rounding did.
        multiply_into(tile, anchor.to(self.operands), self.candidate.T)
        return Filled(scale, scale)

    def excluded(self, chunk: Chunk) -> Int64[Tensor, " entries"]:  # noqa: D102
        columns = self.always[chunk.rows]
        starts = torch.arange(len(columns)) * self.width
        entries = [(starts[:, None] + columns).flatten()]
        for matches in self.matches:
            row, column = matches.pairs(chunk.index)
            entries.append(row * self.width + column)
        return upload(torch.cat(entries), self.document.device)

    def add_steps(  # noqa: D102
        self, tile: Tensor, chunk: Chunk, factor: Tensor, gradients: Gradients
    ) -> None:
        anchor = self._anchor(chunk)
        by_anchor = gradients.query if self.side == "query" else gradients.document
        if by_anchor is not None or gradients.temperature is not None:
            step = anchor_step(tile, self.candidate, factor)
            if by_anchor is not None and self.side == "query":
                by_anchor[chunk.rows] += step
            elif by_anchor is not None:
                by_anchor.index_add_(0, chunk.first, step)
            if gradients.temperature is not None:
                # d/d(1/temperature) = <anchor, step> * temperature, and d(1/t)/dt = -1/t^2
                gradients.temperature[chunk.rows] -= (anchor * step).sum(1) * chunk.inverse
        to_document = self.target == "document"
        by_candidate = gradients.document if to_document else gradients.all_query
        if by_candidate is not None:
            add_candidate_step(by_candidate, tile, anchor, factor)


@dataclass(frozen=True)
class ListedBlock:
    """Query-to-document against a few documents per query: no GEMM, work in proportion to the lists."""

    document: Float[Tensor, "documents dim"]
    listed: Int64[Tensor, "queries listed"]
    negative: Bool[Tensor, "queries listed"]
    """Which of the listed are negatives, on the CPU."""
    hardness: float = 0.0

    @property
    def width(self) -> int:  # noqa: D102
        return self.listed.shape[1]

    @property
    def operands(self) -> torch.dtype:  # noqa: D102
        return torch.promote_types(self.document.dtype, torch.float32)

    def fill(self, tile: Tensor, chunk: Chunk) -> Filled:  # noqa: D102
        scale = chunk.inverse + self.hardness
        similarity = listed_similarity(chunk.query, self.document, self.listed[chunk.rows])
        torch.mul(similarity, scale[:, None], out=tile)
        return Filled(scale, None)

    def excluded(self, chunk: Chunk) -> Int64[Tensor, " entries"]:  # noqa: D102
        left_out = (~self.negative[chunk.rows]).flatten().nonzero()[:, 0]
        return upload(left_out, self.document.device)

    def add_steps(  # noqa: D102
        self, tile: Tensor, chunk: Chunk, factor: Tensor, gradients: Gradients
    ) -> None:
        coefficient, listed = tile * factor[:, None], self.listed[chunk.rows]
        by_query = None if gradients.query is None else gradients.query[chunk.rows]
        add_listed_steps(
            (by_query, gradients.document), chunk.query, self.document, listed, coefficient
        )
        if gradients.temperature is not None:
            similarity = listed_similarity(chunk.query, self.document, listed)
            slope = (coefficient * similarity).sum(1)
            gradients.temperature[chunk.rows] -= slope * chunk.inverse


def cut(problem: InfoNCEProblem, chunk_rows: int) -> Iterator[Chunk]:
    """Cut the queries into runs that share a tile."""
    for index, start in enumerate(range(0, len(problem.query), chunk_rows)):
        rows = slice(start, min(start + chunk_rows, len(problem.query)))
        yield Chunk(
            index=index,
            rows=rows,
            query=problem.query[rows].to(problem.dtype),
            first=problem.positives[rows, 0],
            inverse=problem.temperature[rows].reciprocal(),
        )


def add_positive_steps(
    problem: InfoNCEProblem,
    chunk: Chunk,
    by_similarity: Float[Tensor, "rows positives"],
    by_temperature: Float[Tensor, " rows"],
    gradients: Gradients,
) -> None:
    """Add what the positives' similarities and the temperature beside them give."""
    by_query = None if gradients.query is None else gradients.query[chunk.rows]
    listed = problem.positives[chunk.rows]
    targets = (by_query, gradients.document)
    add_listed_steps(targets, chunk.query, problem.document, listed, by_similarity)
    if gradients.temperature is not None:
        gradients.temperature[chunk.rows] += by_temperature


def anchor_step(tile: Tile, candidate: Candidates, factor: Float[Tensor, " rows"]) -> Anchors:
    """Return the gradient of the anchors, ``factor * (tile @ candidate)`` (one GEMM).

    The factor holds what a softmax divides by, so that no pass over the tile is spent on it.
    """
    return multiply(tile, candidate, factor.dtype).mul_(factor[:, None])


def add_candidate_step(
    gradient: Candidates, tile: Tile, anchor: Anchors, factor: Float[Tensor, " rows"]
) -> None:
    """Add ``tile.T @ (factor * anchor)`` to the gradient of the candidates (one GEMM)."""
    add_product(gradient, tile.T, (anchor * factor[:, None]).to(tile.dtype))


def listed_similarity(
    anchor: Anchors, candidate: Candidates, listed: Listed
) -> Float[Tensor, "rows listed"]:
    """Return the similarity of each anchor with its few listed candidates (unused ones: any number)."""
    scores = [
        (anchor * candidate[column].to(anchor.dtype)).sum(1) for column in listed.clamp_min(0).T
    ]
    return torch.stack(scores, 1)


def add_listed_steps(
    gradients: tuple[Anchors | None, Candidates | None],
    anchor: Anchors,
    candidate: Candidates,
    listed: Listed,
    coefficient: Float[Tensor, "rows listed"],
) -> None:
    """Add the gradients of :func:`listed_similarity` to those of anchors and candidates.

    Coefficients of unused entries must be 0.
    """
    to_anchor, to_candidate = gradients
    for column, weight in zip(listed.clamp_min(0).T, coefficient.T, strict=True):
        if to_anchor is not None:
            to_anchor.addcmul_(candidate[column].to(anchor.dtype), weight[:, None])
        if to_candidate is not None:
            to_candidate.index_add_(0, column, anchor * weight[:, None])
