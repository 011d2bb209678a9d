"""Outputs of a batch for tests of objectives: dense or late-interaction, with teacher scores."""

import torch
import torch.nn.functional as F

from embedtrain.types import Relevance, RetrievalOutputs, TokenEmbeddings

GROUP = 4


def relevance_of(
    num_queries: int, group: int = GROUP, teacher: torch.Tensor | None = None, seed: int = 5
) -> Relevance:
    """Groups of one positive and negatives; a few ids repeat, a few are known positives elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(num_queries * group) + 100
    known = torch.full((num_queries, 2), -1)
    if num_queries > 2:
        known[0, 0] = 100 + 2 * group
        ids[group + 1] = ids[0]
    if teacher is None:
        teacher = torch.randn(num_queries * group, generator=generator)
    return Relevance(
        query_ids=torch.arange(num_queries),
        document_ids=ids,
        owners=torch.arange(num_queries).repeat_interleave(group),
        positives=group * torch.arange(num_queries)[:, None],
        known_positives=known,
        teacher_scores=teacher,
    )


def gram_of(num_queries: int, group: int = GROUP, seed: int = 6) -> torch.Tensor:
    """Return cosines between the documents of each query, as a teacher sees them."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(num_queries, group, 8, generator=generator, dtype=torch.float64)
    units = F.normalize(states, dim=2)
    return units @ units.mT


def embed(num_texts: int, kind: str, seed: int, dim: int = 6) -> torch.Tensor | TokenEmbeddings:
    """Return unit vectors in float64, one or a few per text."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.ones(num_texts, dtype=torch.int64)
    if kind == "late_interaction":
        lengths = torch.randint(1, 4, (num_texts,), generator=generator)
    values = torch.randn(int(lengths.sum()), dim, generator=generator, dtype=torch.float64)
    vectors = F.normalize(values, dim=1).requires_grad_()
    return vectors if kind == "dense" else TokenEmbeddings(vectors, lengths)


def random_outputs(kind: str = "dense", num_queries: int = 5) -> RetrievalOutputs:
    """Return a batch with random embeddings and teacher scores."""
    relevance = relevance_of(num_queries)
    return RetrievalOutputs(
        embed(num_queries, kind, 0), embed(num_queries * GROUP, kind, 1), relevance
    )


def outputs_of_scores(scores: list[list[float]], teacher: list[list[float]]) -> RetrievalOutputs:
    """Return one group per query whose documents have the given scores; the first is the positive."""
    wanted = torch.tensor(scores, dtype=torch.float64)
    num_queries, group = wanted.shape
    query = torch.eye(num_queries, dtype=torch.float64)
    document = torch.zeros(num_queries * group, num_queries, dtype=torch.float64)
    owners = torch.arange(num_queries).repeat_interleave(group)
    document[torch.arange(num_queries * group), owners] = wanted.flatten()
    given = torch.tensor(teacher, dtype=torch.float64).flatten()
    relevance = Relevance(
        query_ids=torch.arange(num_queries),
        document_ids=torch.arange(num_queries * group) + 100,
        owners=owners,
        positives=group * torch.arange(num_queries)[:, None],
        known_positives=torch.full((num_queries, 1), -1),
        teacher_scores=given,
    )
    return RetrievalOutputs(query, document.requires_grad_(), relevance)


def outputs_of_pairs(scores: list[float], teacher: list[float] | None, *more: list[float]):
    """One query with a positive and negatives, and more queries beside it."""
    groups = [scores, *more]
    sizes = torch.tensor(list(map(len, groups)))
    values = torch.tensor([one for group in groups for one in group], dtype=torch.float64)
    relevance = Relevance(
        query_ids=torch.arange(len(groups)),
        document_ids=torch.arange(len(values)) + 100,
        owners=torch.arange(len(groups)).repeat_interleave(sizes),
        positives=(sizes.cumsum(0) - sizes)[:, None],
        known_positives=torch.full((len(groups), 1), -1),
        teacher_scores=None if teacher is None else torch.tensor(teacher, dtype=torch.float64),
    )
    empty = values.new_empty
    return RetrievalOutputs(
        empty(len(groups), 0), empty(len(values), 0), relevance, pair_scores=values.requires_grad_()
    )


def number(value: torch.Tensor) -> float:
    """Return a scalar without its graph."""
    return value.detach().item()
