import math
from dataclasses import replace

import pytest
import torch
from objective_toys import number, outputs_of_scores, random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.d2llm import D2LLM
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import GuideEmbeddings

ALONE = {"hard_weight": 0.0, "rank_weight": 0.0, "easy_weight": 0.0}


def test_without_imitation_it_is_infonce():
    outputs = random_outputs()
    loss = D2LLM(temperature=0.2, **ALONE)(outputs).loss
    assert torch.isclose(loss, InfoNCE(temperature=0.2)(outputs).loss)


def test_rank_imitation_is_met_by_any_increasing_line():
    odds = [0.2, 0.5, 0.9]
    teacher = [[math.log(t / (1 - t)) for t in odds]]
    met = outputs_of_scores([[3 * t - 1 for t in odds]], teacher)
    settings = ALONE | {"rank_weight": 1.0, "temperature": 1.0}
    assert number(D2LLM(**settings)(met).metrics["rank"]) == pytest.approx(0, abs=1e-9)
    opposed = outputs_of_scores([[-t for t in odds]], teacher)
    assert number(D2LLM(**settings)(opposed).metrics["rank"]) == pytest.approx(2)


def test_a_student_or_teacher_without_spread_costs_nothing_and_breaks_nothing():
    outputs = outputs_of_scores([[0.5, 0.5], [0.1, 0.7]], [[1.0, 2.0], [3.0, 3.0]])
    result = D2LLM(**ALONE | {"rank_weight": 1.0})(outputs)
    result.loss.backward()
    assert number(result.metrics["rank"]) == 0
    assert outputs.document.grad.isfinite().all()


def test_negatives_that_the_teacher_doubts_count_less():
    scores = [[0.5, 0.4]]
    settings = ALONE | {"hard_weight": 1.0, "temperature": 1.0}
    result = D2LLM(**settings)(outputs_of_scores(scores, [[0.0, 0.0]]))
    expected = -math.log(math.exp(0.25) / (math.exp(0.25) + math.exp(0.2)))
    assert number(result.metrics["hard"]) == pytest.approx(expected)


def test_own_negatives_are_put_before_those_of_others_as_the_teacher_likes_them():
    outputs = outputs_of_scores([[1.0, 0.5], [0.9, 0.3]], [[5.0, 0.0], [5.0, -100.0]])
    settings = ALONE | {"easy_weight": 1.0, "temperature": 1.0}
    result = D2LLM(**settings)(outputs)
    # Query 0 scores the other's documents 0, and its own negative 0.5 with t = 1/2; query 1 has t = 0.
    expected = 0.5 * math.log1p(math.exp(-0.5)) / 2
    assert number(result.metrics["easy"]) == pytest.approx(expected)


def test_features_need_a_guide():
    with pytest.raises(UserError, match="needs a guide"):
        D2LLM(feature_weight=0.001)(random_outputs())


def test_features_of_the_guide_itself_are_met_whatever_their_axes():
    outputs = random_outputs()
    turned = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    documents = 3 * outputs.document.detach() @ turned
    guide = GuideEmbeddings(outputs.query.detach(), documents, outputs.query.detach())
    result = D2LLM(feature_weight=1.0)(replace(outputs, guide=guide))
    assert number(result.metrics["feature"]) == pytest.approx(0, abs=1e-12)
    other = GuideEmbeddings(guide.query, documents.roll(1, 0), guide.query)
    assert (
        number(D2LLM(feature_weight=1.0)(replace(outputs, guide=other)).metrics["feature"]) > 1e-3
    )
