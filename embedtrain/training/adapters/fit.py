"""Train adapters on vectors in memory: a thousand steps take seconds, so there is no trainer around them."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor

from embedtrain.models.edits.adapters import Activation, AdapterKind, VectorAdapter
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.section import Count, Section
from embedtrain.training.adapters.objective import (
    AdapterData,
    Adapters,
    Vectors,
    adapted,
    ranking_loss,
    ranks_at_sizes,
    reciprocal_rank,
    unsupervised_loss,
)
from embedtrain.types import Relevance, RetrievalOutputs


class AdaptConfig(Section):
    """What `embedtrain adapt` trains, and how."""

    kind: AdapterKind = "low_rank"
    """``low_rank`` (ADDER), ``linear`` or ``mlp``."""
    sides: Literal["query", "shared", "separate"] = "query"
    """Adapt queries only, which leaves an index valid; both sides alike; or each with its own."""
    rank: Count = 64
    """Rows of the inner layer, of ``low_rank`` and ``mlp``."""
    activation: Activation = "identity"
    """Of the inner layer. With ``identity`` a low-rank adapter is one matrix and exports as a Dense module."""
    dims: tuple[Count, ...] = ()
    """Sizes that prefixes of the vectors are trained for (Matryoshka-Adaptor); empty trains the whole vectors."""
    steps: Count = 400
    batch_size: Count = Field(default=256, ge=2)
    learning_rate: PositiveFloat = 1.0e-3
    weight_decay: NonNegativeFloat = 1.0e-4
    """Keeps the residual small; of ``linear`` it pulls towards 0, so leave it small."""
    temperature: PositiveFloat = 0.05
    num_hard: NonNegativeInt = 4
    """Negatives per query from all documents in the adapted space, besides those of the batch."""
    refresh_every: Count = 100
    """Steps between two searches for them."""
    check_every: Count = 50
    """Steps between two measurements on a tenth of the queries, which are not trained on; the best is kept."""
    num_neighbours: Count = 10
    """Of each vector in the original space, whose similarity a Matryoshka-Adaptor keeps above all."""
    pair_weight: NonNegativeFloat = 1.0
    """alpha: similarities of all pairs of a batch, Matryoshka-Adaptor."""
    residual_weight: NonNegativeFloat = 1.0
    """beta: size of the residual, Matryoshka-Adaptor."""
    rank_weight: NonNegativeFloat = 1.0
    """gamma: pairs of the supervised stage, Matryoshka-Adaptor."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _prefixes_of_both_sides(self) -> "AdaptConfig":
        if self.dims and self.sides != "shared":
            raise ValueError("dims shorten both sides' vectors alike: set sides=shared")
        return self


def train_adapters(data: AdapterData, config: AdaptConfig) -> tuple[Adapters, dict[str, float]]:
    """Train adapters; return them with reciprocal ranks at 10 of held-out queries, before and after.

    With ``dims`` also at each size, beside those of vectors that are cut, as they are and after a rotation.

    Without pairs, and with ``dims``, the unsupervised Matryoshka-Adaptor; with both its supervised stage
    follows.
    """
    torch.manual_seed(config.seed)
    adapters = _build(data.documents.shape[1], config)
    trained, held_out = _split(data.pairs, config.seed)
    figures = {}
    if len(data.pairs):
        figures["held_out_mrr_at_10_before"] = reciprocal_rank(
            data, adapters, held_out, config.dims
        )
    if config.dims:
        every = torch.cat([data.queries, data.documents])
        _fit(adapters, config, _matryoshka_losses(adapters, every, config))
    if len(data.pairs) == 0:
        return adapters, {}
    losses = _contrast_losses(adapters, data, trained, config)
    if config.dims:
        losses = _supervised_losses(adapters, data, trained, config)
    figures["held_out_mrr_at_10"] = _fit(
        adapters, config, losses, lambda: reciprocal_rank(data, adapters, held_out, config.dims)
    )
    return adapters, figures | ranks_at_sizes(data, adapters, held_out, config.dims)


def _build(dim: int, config: AdaptConfig) -> Adapters:
    def adapter() -> VectorAdapter:
        return VectorAdapter(dim, config.kind, config.rank, config.activation)

    if config.sides == "query":
        return {"query": adapter()}
    first = adapter()
    return {"query": first, "document": first if config.sides == "shared" else adapter()}


def _split(
    pairs: Int64[np.ndarray, "pairs 2"], seed: int
) -> tuple[Int64[np.ndarray, "_ 2"], Int64[np.ndarray, "_ 2"]]:
    """Hold a tenth of the queries back, with all of their pairs."""
    queries = np.unique(pairs[:, 0])
    chosen = np.random.default_rng(seed).permutation(queries)[: max(1, len(queries) // 10)]
    held = np.isin(pairs[:, 0], chosen)
    return pairs[~held], pairs[held]


def _fit(
    adapters: Adapters,
    config: AdaptConfig,
    losses: Iterator[Tensor],
    measure: Callable[[], float] | None = None,
) -> float:
    """Take the optimizer steps; keep the best weights where something is measured."""
    modules = torch.nn.ModuleDict(dict(adapters.items()))
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best, kept = -1.0, modules.state_dict()
    for step in range(config.steps + 1):
        if measure is not None and (step % config.check_every == 0 or step == config.steps):
            value = measure()
            if value > best:
                best = value
                kept = {name: weight.clone() for name, weight in modules.state_dict().items()}
        if step < config.steps:
            loss = next(losses)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if measure is not None:
        modules.load_state_dict(kept)
    return best


def _contrast_losses(
    adapters: Adapters, data: AdapterData, pairs: Int64[np.ndarray, "pairs 2"], config: AdaptConfig
) -> Iterator[Tensor]:
    """Yield InfoNCE of random batches with the hardest documents of the whole collection as negatives."""
    generator = np.random.default_rng([config.seed, 1])
    objective = InfoNCE(temperature=config.temperature)
    known = _known(pairs, len(data.queries))
    hard = np.zeros((len(data.queries), 0), dtype=np.int64)
    step = 0
    while True:
        if config.num_hard and step % config.refresh_every == 0:
            hard = _hardest(adapters, data, pairs, known, config.num_hard)
        batch = pairs[_drawn(generator, len(pairs), config)]
        queries, groups = batch[:, 0], np.concatenate([batch[:, 1:], hard[batch[:, 0]]], 1)
        size, width = groups.shape
        owners = torch.arange(size).repeat_interleave(width)
        relevance = Relevance(
            query_ids=torch.from_numpy(queries),
            document_ids=torch.from_numpy(groups.reshape(-1)),
            owners=owners,
            positives=torch.arange(size)[:, None] * width,
            known_positives=torch.from_numpy(known[queries]),
        )
        query = adapted(adapters, "query", data.queries[queries])
        document = adapted(adapters, "document", data.documents[groups.reshape(-1)])
        yield objective(RetrievalOutputs(query, document, relevance)).loss
        step += 1


def _drawn(generator: np.random.Generator, total: int, config: AdaptConfig) -> NDArray[np.int64]:
    """Return the rows of a batch, none twice."""
    return generator.choice(total, min(config.batch_size, total), replace=False)


def _known(
    pairs: Int64[np.ndarray, "pairs 2"], num_queries: int
) -> Int64[np.ndarray, "queries known"]:
    """Return the documents that answer each query, -1 unused."""
    answers: list[list[int]] = [[] for _ in range(num_queries)]
    for query, document in pairs.tolist():
        answers[query].append(document)
    known = np.full((num_queries, max(map(len, answers))), -1, dtype=np.int64)
    for row, found in zip(known, answers, strict=True):
        row[: len(found)] = found
    return known


@torch.no_grad()
def _hardest(
    adapters: Adapters,
    data: AdapterData,
    pairs: Int64[np.ndarray, "pairs 2"],
    known: Int64[np.ndarray, "queries known"],
    count: int,
) -> Int64[np.ndarray, "queries count"]:
    """Return the documents that each trained query likes best now and that do not answer it."""
    rows = np.unique(pairs[:, 0])
    queries = adapted(adapters, "query", data.queries[rows]).numpy()
    documents = adapted(adapters, "document", data.documents).numpy()
    wanted = min(count + known.shape[1], len(documents))
    found = search_exact(queries, documents, wanted).indices
    spared = (found[:, :, None] == known[rows][:, None]).any(2)
    order = spared.argsort(axis=1, kind="stable")[:, :count]
    hard = np.zeros((len(data.queries), order.shape[1]), dtype=np.int64)
    hard[rows] = np.take_along_axis(found, order, 1)
    return hard


def _matryoshka_losses(
    adapters: Adapters, vectors: Vectors, config: AdaptConfig
) -> Iterator[Tensor]:
    """Yield the unsupervised loss of a Matryoshka-Adaptor: short prefixes keep the original similarities."""
    generator = np.random.default_rng([config.seed, 2])
    wanted = min(config.num_neighbours + 1, len(vectors))
    near = search_exact(vectors.numpy(), vectors.numpy(), wanted).indices
    adapter = adapters["query"]
    while True:
        rows = _drawn(generator, len(vectors), config)
        neighbours = near[rows]
        other = neighbours != rows[:, None]  # a vector is its own nearest neighbour
        yield unsupervised_loss(
            adapter,
            vectors[rows],
            vectors[neighbours.reshape(-1)],
            torch.from_numpy(other),
            dims=config.dims,
            pair_weight=config.pair_weight,
            residual_weight=config.residual_weight,
        )


def _supervised_losses(
    adapters: Adapters, data: AdapterData, pairs: Int64[np.ndarray, "pairs 2"], config: AdaptConfig
) -> Iterator[Tensor]:
    """Yield the loss of the second stage: the first one's, and the order of labelled pairs at each size."""
    every = torch.cat([data.queries, data.documents])
    generator = np.random.default_rng([config.seed, 3])
    known = _known(pairs, len(data.queries))
    for first in _matryoshka_losses(adapters, every, config):
        batch = pairs[_drawn(generator, len(pairs), config)]
        answers = (batch[None, :, 1, None] == known[batch[:, 0]][:, None]).any(2)
        query = adapted(adapters, "query", data.queries[batch[:, 0]])
        document = adapted(adapters, "document", data.documents[batch[:, 1]])
        order = ranking_loss(query, document, torch.from_numpy(answers), dims=config.dims)
        yield first + config.rank_weight * order
