import math
from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, number, outputs_of_scores, random_outputs

from embedtrain.errors import UserError
from embedtrain.models.dense.pair_head import InteractionConfig, InteractionHead
from embedtrain.objectives.d2llm import D2LLM
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.ops.interaction import interaction_features, interaction_scores

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


@pytest.mark.parametrize(("of_positive", "of_negative"), [(0.5, 0.5), (0.8, 0.1)])
def test_negatives_that_the_teacher_doubts_count_less(of_positive, of_negative):
    scores = [[0.5, 0.4]]
    settings = ALONE | {"hard_weight": 1.0, "temperature": 1.0}
    teacher = [[math.log(t / (1 - t)) for t in (of_positive, of_negative)]]
    result = D2LLM(**settings)(outputs_of_scores(scores, teacher))
    logits = [of_positive * 0.5, (1 - of_negative) * 0.4]
    expected = math.log1p(math.exp(logits[1] - logits[0]))
    assert number(result.metrics["hard"]) == pytest.approx(expected)


def test_own_negatives_are_put_before_those_of_others_as_the_teacher_likes_them():
    outputs = outputs_of_scores([[1.0, 0.5], [0.9, 0.3]], [[5.0, 0.0], [5.0, -100.0]])
    settings = ALONE | {"easy_weight": 1.0, "temperature": 1.0}
    result = D2LLM(**settings)(outputs)
    # Query 0 scores the other's documents 0, and its own negative 0.5 with t = 1/2; query 1 has t = 0.
    expected = 0.5 * math.log1p(math.exp(-0.5)) / 2
    assert number(result.metrics["easy"]) == pytest.approx(expected)


def with_head(outputs, hidden=5):
    torch.manual_seed(3)
    head = InteractionHead(6, InteractionConfig(hidden=hidden)).double()
    return replace(outputs, interaction=head.weights), head


def test_with_a_head_every_loss_is_that_of_its_scores():
    """Scores of the head, laid out as inner products: both must cost the same."""
    outputs, head = with_head(random_outputs())
    settings = {"temperature": 1.0, "easy_weight": 0.3}
    found = D2LLM(**settings)(outputs)
    scores = interaction_scores(head.weights, outputs.query, outputs.document)
    same = replace(
        outputs,
        query=torch.eye(len(scores), dtype=torch.float64),
        document=scores.T.contiguous(),
        interaction=None,
    )
    expected = D2LLM(**settings)(same)
    assert number(found.loss) == pytest.approx(number(expected.loss))
    for name, value in expected.metrics.items():
        assert number(found.metrics[name]) == pytest.approx(number(value)), name


def test_blocks_of_queries_give_the_loss_and_gradients_of_all_at_once(monkeypatch):
    results = []
    for scores_at_once in (2**22, 1):
        monkeypatch.setattr("embedtrain.objectives.d2llm.SCORES_AT_ONCE", scores_at_once)
        outputs, head = with_head(random_outputs())
        loss = D2LLM(temperature=1.0)(outputs).loss
        loss.backward()
        results.append(
            [loss.detach(), outputs.query.grad, head.hidden.weight.grad, head.output.grad]
        )
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole)


def test_the_task_chooses_the_branch_that_learns():
    outputs, head = with_head(random_outputs())
    D2LLM(temperature=1.0, task="similarity")(outputs).loss.backward()
    assert head.retrieval.weight.grad is None
    assert head.similarity.weight.grad.abs().max() > 0


def test_features_of_a_head_are_compared_pair_by_pair():
    outputs, head = with_head(random_outputs(), hidden=6)
    rows = torch.arange(5).repeat_interleave(GROUP)
    features = interaction_features(head.weights, outputs.query, outputs.document, rows).detach()
    settings = ALONE | {"feature_weight": 1.0, "temperature": 1.0}
    met = D2LLM(**settings)(seen_as(outputs, 2 * features)).metrics["feature"]
    assert number(met) == pytest.approx(0, abs=1e-12)
    missed = D2LLM(**settings)(seen_as(outputs, features.roll(1, 0))).metrics["feature"]
    assert number(missed) > 1e-4


def seen_as(outputs, features):
    """The outputs beside a teacher with these features of each query's documents."""
    units = torch.nn.functional.normalize(features, dim=1).reshape(-1, GROUP, features.shape[1])
    gram = units @ units.mT
    return replace(outputs, relevance=replace(outputs.relevance, teacher_gram=gram))


def test_features_need_those_of_the_teacher():
    with pytest.raises(UserError, match=r"the rows have none.*score LLM --as yes_no --gram"):
        D2LLM(feature_weight=0.001)(random_outputs())
    with pytest.raises(UserError, match="compares one vector per text"):
        D2LLM(feature_weight=0.001)(random_outputs("late_interaction"))


def test_documents_alone_have_nothing_to_be_compared_with():
    outputs = outputs_of_scores([[0.5], [0.7]], [[1.0], [2.0]])
    assert number(D2LLM(feature_weight=1.0)(outputs).metrics["feature"]) == 0


def test_features_of_the_teacher_itself_are_met_whatever_their_axes():
    outputs = random_outputs()
    turned = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    documents = 3 * outputs.document.detach() @ turned
    result = D2LLM(feature_weight=1.0)(seen_as(outputs, documents))
    assert number(result.metrics["feature"]) == pytest.approx(0, abs=1e-12)
    other = D2LLM(feature_weight=1.0)(seen_as(outputs, documents.roll(1, 0)))
    assert number(other.metrics["feature"]) > 1e-3


def test_the_loss_of_features_is_the_mean_of_squares_by_hand():
    outputs = outputs_of_scores([[0.0, 0.0]], [[1.0, 0.0]])
    document = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    outputs = replace(outputs, document=document)
    gram = torch.tensor([[[1.0, 0.2], [0.2, 1.0]]], dtype=torch.float64)
    outputs = replace(outputs, relevance=replace(outputs.relevance, teacher_gram=gram))
    # The student's cosine is -1: (0 + 1.2^2 + 1.2^2 + 0) / 4.
    found = D2LLM(feature_weight=0.5)(outputs).metrics["feature"]
    assert number(found) == pytest.approx(0.5 * 0.72)
