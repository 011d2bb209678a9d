"""Objectives on the scores that a cross-encoder gives pairs: hand-worked values, and one seam for all models."""

from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, embed, number, outputs_of_pairs, relevance_of

from embedtrain.errors import UserError
from embedtrain.objectives import OBJECTIVES, Objective
from embedtrain.objectives.adr_mse import ADRMSE
from embedtrain.objectives.binary_cross_entropy import BinaryCrossEntropy
from embedtrain.objectives.cosine_regression import CosineRegression
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.kl_distillation import KLDistillation
from embedtrain.objectives.list_mle import ListMLE
from embedtrain.objectives.margin_mse import MarginMSE
from embedtrain.objectives.pointwise_distillation import PointwiseDistillation
from embedtrain.objectives.rank_net import RankNet
from embedtrain.objectives.triplet import Triplet
from embedtrain.objectives.weighted_sum import WeightedSum
from embedtrain.ops.similarity import pair_scores
from embedtrain.types import RetrievalOutputs

SCORES = [2.0, 0.5, 1.0, -1.0]
GRADES = [1.0, 0.0, 2.0, 0.0]
TEACHER = [3.0, 1.0, 2.0, -2.0]
BOTH = WeightedSum(objectives=(InfoNCE(), KLDistillation()), weights=(1.0, 2.0))
TABLE = [
    (BinaryCrossEntropy(), None, 0.681882),
    (BinaryCrossEntropy(positive_weight=3.0), None, 0.745346),
    (BinaryCrossEntropy(labels="scores"), [1.0, 0.0, 0.0, 0.0], 0.681882),
    (InfoNCE(), None, 0.495182),
    (KLDistillation(), TEACHER, 0.029364),
    (MarginMSE(), TEACHER, 1.416667),
    (PointwiseDistillation(weight=1.0), TEACHER, 0.812500),
    (RankNet(), GRADES, 0.432853),
    (RankNet(weights="lambda_rank"), GRADES, 0.074923),
    (RankNet(weights="ndcg_loss2"), GRADES, 0.086692),
    (RankNet(weights="ndcg_loss2pp"), GRADES, 0.941847),
    (ADRMSE(), GRADES, 0.507845),
    (ListMLE(), [2.0, 1.0, 3.0, 0.0], 1.937906),
    (ListMLE(), [2.0, 0.0, 3.0, 1.0], 3.437906),
    (ListMLE(weights="top"), [2.0, 1.0, 3.0, 0.0], 1.035602),
    (BOTH, TEACHER, 0.495182 + 2 * 0.029364),
]
EVERY = [
    *(objective for objective, _, _ in TABLE),
    Triplet(),
    InfoNCE(several_positives="any"),
    InfoNCE(label_smoothing=0.1),
    InfoNCE(false_negative_margin=0.05),
]


@pytest.mark.parametrize(
    ("objective", "teacher", "value"),
    TABLE,
    ids=[f"{one.name} {number}" for number, (one, _, _) in enumerate(TABLE)],
)
def test_the_hand_worked_example(objective, teacher, value):
    loss = objective.for_pairs()(outputs_of_pairs(SCORES, teacher)).loss
    assert number(loss) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("objective", [RankNet(), RankNet(weights="ndcg_loss2pp"), ListMLE()])
def test_a_query_with_one_document_adds_nothing(objective):
    alone = objective.for_pairs()(outputs_of_pairs(SCORES, GRADES)).loss
    beside = objective.for_pairs()(outputs_of_pairs(SCORES, [*GRADES, 5.0], [9.0])).loss
    assert number(beside) == pytest.approx(number(alone) / 2)


@pytest.mark.parametrize("objective", EVERY, ids=lambda one: one.name)
def test_vectors_and_pairs_of_the_same_scores_train_alike(objective):
    objective, relevance = objective.for_pairs(), relevance_of(5)
    if objective == BinaryCrossEntropy(labels="scores").for_pairs():
        relevance = replace(relevance, teacher_scores=relevance.teacher_scores.sigmoid())
    query, document = embed(5, "dense", 0), embed(5 * GROUP, "dense", 1)
    scores = pair_scores(query, document, relevance.owners).detach().requires_grad_()
    dense = objective(RetrievalOutputs(query, document, relevance)).loss
    empty = scores.new_empty
    paired = RetrievalOutputs(empty(5, 0), empty(20, 0), relevance, pair_scores=scores)
    loss = objective(paired).loss
    torch.testing.assert_close(loss, dense, rtol=1e-12, atol=1e-12)
    dense.backward()
    loss.backward()
    assert scores.grad.norm() > 1e-3
    expected = torch.zeros_like(document).index_add(
        0, torch.arange(20), scores.grad[:, None] * query.detach()[relevance.owners]
    )
    torch.testing.assert_close(document.grad, expected, rtol=1e-10, atol=1e-12)


def test_scores_of_other_pairs_are_refused():
    both = ("query_to_document", "document_to_query")
    for objective in (InfoNCE(), InfoNCE(negatives="own", directions=both)):
        assert not objective.uses_pairs
        with pytest.raises(UserError, match="negatives: own"):
            objective(outputs_of_pairs(SCORES, None))


def test_which_objectives_a_cross_encoder_trains():
    assert all(objective.for_pairs().uses_pairs for objective in EVERY)
    for stated in (InfoNCE(negatives="all"), Triplet(distance="euclidean"), CosineRegression()):
        assert not stated.for_pairs().uses_pairs
    assert InfoNCE(temperature=0.2).for_pairs() == InfoNCE(temperature=0.2, negatives="own")
    assert not WeightedSum(objectives=(RankNet(), CosineRegression())).for_pairs().uses_pairs
    assert {name for name, kind in OBJECTIVES.items() if kind.uses_pairs is not Objective.uses_pairs} == {
        *("info_nce", "rank_net", "kl_distillation", "margin_mse", "pointwise_distillation"),
        *("triplet", "sum", "binary_cross_entropy", "list_mle", "pair_classification"),
        *("adr_mse", "multi_exit"),
    }  # fmt: skip
