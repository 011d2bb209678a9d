"""What holds for every objective that learns from scores: chunks, rematerialising and ranks change nothing."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from objective_toys import GROUP, embed, gram_of, number, relevance_of
from rank_toys import on_ranks

from embedtrain.models.build import load_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.pair_head import InteractionConfig, InteractionHead
from embedtrain.objectives.angle import AnglE
from embedtrain.objectives.binary_cross_entropy import BinaryCrossEntropy
from embedtrain.objectives.ccp import CCP
from embedtrain.objectives.contrastive import Contrastive
from embedtrain.objectives.cosent import CoSENT
from embedtrain.objectives.cosine_regression import CosineRegression
from embedtrain.objectives.d2llm import D2LLM
from embedtrain.objectives.embedding_distillation import EmbeddingDistillation
from embedtrain.objectives.gist import GIST
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.objectives.labelled_positives import LabelledPositives
from embedtrain.objectives.list_mle import ListMLE
from embedtrain.objectives.margin_mse import MarginMSE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.multi_similarity import MultiSimilarity
from embedtrain.objectives.orthogonal_projection import OrthogonalProjection
from embedtrain.objectives.outputs import Outputs
from embedtrain.objectives.pair import Pair
from embedtrain.objectives.pearson import Pearson
from embedtrain.objectives.pointwise_distillation import PointwiseDistillation
from embedtrain.objectives.pro import PRO
from embedtrain.objectives.rank_kl import RankKL
from embedtrain.objectives.rank_net import RankNet
from embedtrain.objectives.set_contrast import SetContrast
from embedtrain.objectives.soft_infonce import SoftInfoNCE
from embedtrain.objectives.soft_top_k import SoftTopK
from embedtrain.objectives.supervised_contrast import SupervisedContrast
from embedtrain.objectives.triplet import Triplet
from embedtrain.training.ranks.gather import gather_outputs
from embedtrain.types import (
    GuideEmbeddings,
    Relevance,
    RetrievalBatch,
    RetrievalOutputs,
    TokenEmbeddings,
)

EVERY = [
    KLDistillation(temperature=0.2),
    KLDistillation(temperature=0.2, candidates="batch"),
    MarginMSE(scale=5.0),
    SoftInfoNCE(temperature=0.2),
    RankNet(weights="ndcg"),
    RankNet(weights="ndcg_loss2pp"),
    ListMLE(temperature=0.2, weights="top"),
    BinaryCrossEntropy(positive_weight=3.0),
    SoftTopK(k=3, temperature=0.3),
    CCP(temperature=0.3),
    Pair(alpha=0.3, temperature=0.2),
    PointwiseDistillation(),
    GIST(directions=("query_to_document",), temperature=0.2, margin=0.1),
    EmbeddingDistillation(kind="similarity"),
    D2LLM(temperature=0.5),
    D2LLM(temperature=0.5, feature_weight=1.0),
    Matryoshka(inner=InfoNCE(temperature=0.2), dims=(4, 3, 2), num_sampled=2),
    Matryoshka(inner=InfoNCE(temperature=0.2), dims=(4, 2), alignment=0.5),
    Outputs(inner=InfoNCE(temperature=0.2), quantize=("binary", "int8"), matryoshka=(4,)),
    Outputs(inner=MarginMSE(), quantize="ternary", scoring="both", through="identity"),
    CoSENT(scale=5.0),
    Pearson(),
    PRO(temperature=0.2),
    RankKL(temperature=0.2),
    CosineRegression(),
    Contrastive(),
    OrthogonalProjection(),
    Triplet(distance="similarity"),
    MultiSimilarity(),
    SetContrast(temperature=0.2),
    SupervisedContrast(temperature=0.2),
    LabelledPositives(inner=InfoNCE(temperature=0.2), threshold=0.0),
    AnglE(scale=5.0),
]
KINDS = {  # the others score late interaction as well
    "angle": ("dense",),
    "ccp": ("dense",),
    "d2llm": ("dense", "late_interaction", "interaction"),
}
NAMES = [f"{objective.name} {number}" for number, objective in enumerate(EVERY)]


@pytest.fixture(scope="module")
def model(bert):
    return load_dense(bert).double()


@pytest.mark.parametrize("objective", EVERY, ids=NAMES)
def test_chunks_that_are_encoded_again_give_the_plain_gradients(objective, model, sentences):
    texts = sentences[:30]
    queries, documents = (
        model.tokenization.encode(part, side)
        for part, side in ((texts[:6], "query"), (texts[6:], "document"))
    )
    batch = RetrievalBatch(queries, documents, torch.arange(6), torch.arange(24), judged())
    found = []
    for execution in (Execution(10_000), Execution(20, rematerialize=True)):
        model.zero_grad()
        result = objective(guided(model(batch, execution)))
        result.loss.backward()
        gradients = {
            name: value.grad.clone()
            for name, value in model.named_parameters()
            if value.grad is not None
        }
        found.append((result.loss.detach(), gradients))
    (plain_loss, plain), (chunked_loss, chunked) = found
    torch.testing.assert_close(chunked_loss, plain_loss, rtol=1e-12, atol=1e-12)
    assert plain.keys() == chunked.keys()
    assert max(number(value.norm()) for value in plain.values()) > 1e-6
    for name, value in plain.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-9, atol=1e-11)


def judged() -> Relevance:
    """Six queries with all that a teacher may say."""
    return replace(relevance_of(6), teacher_gram=gram_of(6))


def guided(outputs: RetrievalOutputs) -> RetrievalOutputs:
    """A guide whose vectors follow from the ids, as those of stored vectors do."""

    def vectors(ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(4, dtype=torch.float64)
        return torch.sin(ids.double()[:, None] * (places + 1.0)) / 2

    relevance = outputs.relevance
    query, document = vectors(relevance.query_ids), vectors(relevance.document_ids)
    return replace(outputs, guide=GuideEmbeddings(query, document, query))


def encode(weight: torch.Tensor, inputs: torch.Tensor | TokenEmbeddings):
    if isinstance(inputs, TokenEmbeddings):
        return replace(inputs, tokens=inputs.tokens.detach() @ weight)
    return inputs.detach() @ weight


def loss_and_gradient(objective, kind: str, rank: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of six queries, or of the three that a rank holds, and the weight's gradient."""
    weight = torch.eye(6, dtype=torch.float64) + 0.1
    weight.requires_grad_()
    relevance = judged()
    head = interaction_head() if kind == "interaction" else None
    kind = "dense" if head else kind
    query, document = embed(6, kind, 0), embed(6 * GROUP, kind, 1)
    if rank is not None:
        queries = torch.arange(3) + 3 * rank
        documents = torch.arange(3 * GROUP) + 3 * GROUP * rank
        select = lambda x, rows: x.select(rows) if isinstance(x, TokenEmbeddings) else x[rows]  # noqa: E731
        query, document = select(query, queries), select(document, documents)
        relevance = replace(
            relevance,
            query_ids=relevance.query_ids[queries],
            document_ids=relevance.document_ids[documents],
            owners=relevance.owners[documents] - 3 * rank,
            positives=relevance.positives[queries] - 3 * GROUP * rank,
            known_positives=relevance.known_positives[queries],
            teacher_scores=relevance.teacher_scores[documents],
            teacher_gram=relevance.teacher_gram[queries],
        )
    outputs = RetrievalOutputs(encode(weight, query), encode(weight, document), relevance)
    outputs = replace(outputs, interaction=head.weights if head else None)
    gathered = gather_outputs(outputs, with_queries=objective.needs_all_queries)
    loss = objective(guided(gathered)).loss
    loss.backward()
    of_head = (
        [value.grad.flatten() for value in head.parameters() if value.grad is not None]
        if head
        else []
    )
    return loss.detach(), torch.cat([weight.grad.flatten(), *of_head])


def interaction_head() -> InteractionHead:
    torch.manual_seed(3)
    return InteractionHead(6, InteractionConfig(hidden=5)).double()


CASES = [
    (objective, kind)
    for objective in EVERY
    for kind in KINDS.get(objective.name, ("dense", "late_interaction"))
    if kind != "late_interaction"
    or not (getattr(objective, "feature_weight", 0) or getattr(objective, "scoring", "") == "both")
]


def compare(expected: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for case, one in zip(CASES, expected, strict=True):
        for value, whole in zip(loss_and_gradient(*case, dist.get_rank()), one, strict=True):
            dist.all_reduce(value)
            torch.testing.assert_close(value / 2, whole, rtol=1e-9, atol=1e-10)


def test_two_ranks_train_like_one_process():
    on_ranks(2, compare, [loss_and_gradient(*case, None) for case in CASES])
