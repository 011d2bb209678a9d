"""Objectives of a query's own documents: how many others brought changes nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from objective_toys import embed

from embedtrain.objectives.contrastive import Contrastive
from embedtrain.objectives.cosine_regression import CosineRegression
from embedtrain.objectives.d2llm import D2LLM
from embedtrain.objectives.embedding_distillation import EmbeddingDistillation
from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.objectives.margin_mse import MarginMSE
from embedtrain.objectives.multi_exit import MultiExit
from embedtrain.objectives.orthogonal_projection import OrthogonalProjection
from embedtrain.objectives.pointwise_distillation import PointwiseDistillation
from embedtrain.objectives.rank_net import RankNet
from embedtrain.objectives.triplet import Triplet
from embedtrain.types import GuideEmbeddings, Relevance, RetrievalOutputs

DOCUMENTS = ((1, 5), (0, 3, 6, 7), (2, 4, 8))
"""Of each query; the first is a positive, and of query 1 the third as well."""
POSITIVES = ((1,), (0, 6), (2,))


def batch_of(*queries: int) -> RetrievalOutputs:
    """Return some of the queries with what they brought, in the order of the whole batch."""
    kept = sorted(column for query in queries for column in DOCUMENTS[query])
    place = {column: number for number, column in enumerate(kept)}
    owner = {c: row for row, query in enumerate(queries) for c in DOCUMENTS[query]}
    width = max(len(POSITIVES[query]) for query in queries)
    positives = torch.full((len(queries), width), -1)
    for row, query in enumerate(queries):
        for number, column in enumerate(POSITIVES[query]):
            positives[row, number] = place[column]
    rows, columns = torch.tensor(queries), torch.tensor(kept)
    teacher = torch.arange(9, dtype=torch.float64).sin()
    relevance = Relevance(
        query_ids=rows,
        document_ids=columns + 100,
        owners=torch.tensor([owner[column] for column in kept]),
        positives=positives,
        known_positives=torch.full((len(queries), 1), -1),
        teacher_scores=teacher[columns],
        teacher_gram=gram_of(queries),
    )
    query, document, guide = (embed(9, "dense", seed).detach() for seed in range(3))
    return RetrievalOutputs(
        query[rows],
        document[columns],
        relevance,
        guide=GuideEmbeddings(guide[rows], guide[columns], guide[rows]),
    )


def gram_of(queries: tuple[int, ...]) -> torch.Tensor:
    """What a teacher sees between the documents of each query; what fills up is no number that may count."""
    width = max(len(DOCUMENTS[query]) for query in queries)
    gram = torch.full((len(queries), width, width), 9.0, dtype=torch.float64)
    for row, query in enumerate(queries):
        own = torch.tensor(DOCUMENTS[query], dtype=torch.float64)
        gram[row, : len(own), : len(own)] = (own[:, None] - own).cos()
    return gram


def loss_of(objective: Callable) -> Callable[[RetrievalOutputs], torch.Tensor]:
    return lambda outputs: objective(outputs).loss


def part_of(name: str) -> Callable[[RetrievalOutputs], torch.Tensor]:
    objective = D2LLM(temperature=0.5, feature_weight=1.0)
    return lambda outputs: objective(outputs).metrics[name]


def exits(outputs: RetrievalOutputs) -> torch.Tensor:
    return MultiExit(inner=MarginMSE())(replace(outputs, exits=(1, 2))).loss


OWN = {
    "kl": loss_of(KLDistillation(temperature=0.3)),
    "margin_mse": loss_of(MarginMSE()),
    "triplet": loss_of(Triplet()),
    "similarity": loss_of(Triplet(distance="similarity")),
    "rank_net": loss_of(RankNet(weights="ndcg")),
    "pointwise": loss_of(PointwiseDistillation()),
    "regression": loss_of(CosineRegression()),
    "orthogonal": loss_of(OrthogonalProjection()),
    "contrastive": loss_of(Contrastive()),
    "embedding": loss_of(EmbeddingDistillation()),
    "d2llm_hard": part_of("hard"),
    "d2llm_rank": part_of("rank"),
    "d2llm_feature": part_of("feature"),
    "exits": exits,
}


@pytest.mark.parametrize("loss", OWN.values(), ids=OWN)
def test_the_loss_of_a_batch_is_the_mean_of_its_queries(loss):
    alone = torch.stack([loss(batch_of(query)) for query in range(3)])
    torch.testing.assert_close(loss(batch_of(0, 1, 2)), alone.mean())
    assert alone.abs().min() > 1e-4
