r"""Heads that make more of a query than one vector: a small network (Hypencoder), or several vectors (Poly-encoder).

**Networks.** For each matrix of the query's network (:mod:`embedtrain.ops.query_network`) with $n$ inputs and $o$
outputs, and H the states of the query's tokens, learned $\Theta$ look at the tokens and change a matrix that all
queries share:

$$R = \mathrm{LN}\left(\mathrm{relu}\left(\mathrm{softmax}(\Theta (H W_k)^\top / \sqrt{o})\, H W_v\right)\right), \quad W^\top = W_0 + R A + a$$

with $\Theta, R, W_0 \in R^{o \times n}$; a bias of n numbers is a matrix of one output, and LN learns nothing. A starts
so small that at first all queries have nearly the same network.

**Codes.** m learned codes $c_i$ look at the tokens: $y_i = \sum_t \mathrm{softmax}_t(c_i^\top h_t)\, h_t$.

Source: Killingback et al. (2025), https://arxiv.org/abs/2502.05364; Humeau et al. (2019),
https://arxiv.org/abs/1905.01969.
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from embedtrain.interaction_types import CodeAttention, GraphSearch, Interaction, QueryNetwork
from embedtrain.models.pooling import widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.section import Count, Section


class GraphConfig(Section):
    """Follow the neighbours of good documents instead of scoring all."""

    neighbours: Count = 32
    """Of each document, by the distance of vectors."""
    entries: Count = 500
    """Documents that a search begins with."""
    expanded: Count = 50
    """Documents whose neighbours are scored, at each step."""
    max_steps: Count = 16


class QueryNetworkConfig(Section):
    """Make a small network of each query, which scores documents (Hypencoder)."""

    num_layers: NonNegativeInt = 2
    """Layers of the network, as wide as a document's vector: ``model.projection`` sets that. The paper has 6 of 768."""
    graph: GraphConfig | None = None
    """How documents are searched; null scores all."""


class QueryCodesConfig(Section):
    """Make several vectors of each query, to which a document attends (Poly-encoder)."""

    num_codes: int = Field(default=16, ge=1, le=1000)


class QueryHead(SavedPart):
    """Makes numbers of the states of a query's tokens; ``scorer`` says what they are."""

    scorer: Interaction

    @abstractmethod
    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts numbers"]:
        """Return each query's numbers, in float32 at least."""

    @property
    @abstractmethod
    def num_numbers(self) -> int:
        """Numbers of a query."""


class NetworkHead(QueryHead):
    """Makes the networks of queries. ``width`` is that of states, ``dim`` that of document vectors."""

    weights_file = "query_network.safetensors"

    def __init__(self, width: int, dim: int, config: QueryNetworkConfig) -> None:
        super().__init__()
        self.config = config
        graph = None if config.graph is None else GraphSearch(**config.graph.model_dump())
        self.scorer: QueryNetwork = QueryNetwork(dim, config.num_layers, graph)
        self.matrices = nn.ModuleList(
            _HyperMatrix(width, dim, dim) for _ in range(config.num_layers)
        )
        biases = [_HyperMatrix(width, dim, 1) for _ in range(config.num_layers)]
        for bias in biases:
            nn.init.zeros_(bias.base)
        self.biases = nn.ModuleList(biases)
        self.output = _HyperMatrix(width, dim, 1)

    @property
    def num_numbers(self) -> int:
        """Weights of a network."""
        return self.scorer.num_weights

    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts numbers"]:
        """Return the weights of each query's network, laid end to end."""
        grid, there = padded(states.to(self.output.base.dtype), lengths)
        parts = []
        for matrix, bias in zip(self.matrices, self.biases, strict=True):
            parts += [matrix(grid, there).transpose(1, 2).flatten(1), bias(grid, there).flatten(1)]
        return torch.cat([*parts, self.output(grid, there).flatten(1)], dim=1)


class _HyperMatrix(nn.Module):
    """One matrix of the network, outputs in rows."""

    def __init__(self, width: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.randn(outputs, inputs) * math.sqrt(2 / inputs))
        self.seeds = nn.Parameter(10 * torch.randn(outputs, inputs))
        self.key = nn.Linear(width, inputs)
        self.value = nn.Linear(width, inputs)
        self.change = nn.Linear(inputs, inputs)
        nn.init.normal_(self.change.weight, std=1 / inputs**2)
        nn.init.zeros_(self.change.bias)

    def forward(
        self, states: Float[Tensor, "texts tokens width"], there: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts outputs inputs"]:
        seeds = self.seeds / math.sqrt(len(self.seeds))
        weights = attention(seeds, widen(self.key(states)), there)
        seen = F.relu(weights @ widen(self.value(states)))
        return widen(self.base + self.change(F.layer_norm(seen, seen.shape[-1:])))


class CodesHead(QueryHead):
    """Makes several vectors of a query. ``project`` is what documents pass behind their pooling."""

    weights_file = "query_codes.safetensors"

    def __init__(self, width: int, dim: int, config: QueryCodesConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = dim
        self.scorer: CodeAttention = CodeAttention(config.num_codes)
        self.codes = nn.Parameter(torch.randn(config.num_codes, width) / math.sqrt(width))
        self.project = None if dim == width else nn.Linear(width, dim, bias=False)

    @property
    def num_numbers(self) -> int:
        """Coordinates of all vectors."""
        return self.config.num_codes * self.dim

    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts numbers"]:
        """Return the vectors of each query, laid end to end."""
        grid, there = padded(states.to(self.codes.dtype), lengths)
        vectors = attention(self.codes, widen(grid), there) @ widen(grid)
        if self.project is not None:
            vectors = widen(self.project(vectors))
        return vectors.flatten(1)


def padded(
    states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
) -> tuple[Float[Tensor, "texts tokens_of_text width"], Bool[Tensor, "texts tokens_of_text"]]:
    """Return the states of each text in a row of its own, 0 behind its end, and where there are any."""
    columns = torch.arange(int(lengths.max()), device=lengths.device)
    there = columns < lengths[:, None]
    grid = states.new_zeros(*there.shape, states.shape[1])
    return grid.masked_scatter(there[:, :, None], states), there


def attention(
    seeds: Float[Tensor, "seeds dim"],
    keys: Float[Tensor, "texts tokens dim"],
    there: Bool[Tensor, "texts tokens"],
) -> Float[Tensor, "texts seeds tokens"]:
    """Return how each seed looks at the tokens of each text."""
    logits = widen(seeds) @ keys.transpose(1, 2)
    return logits.masked_fill(~there[:, None], -torch.inf).softmax(2)
