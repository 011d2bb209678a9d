import torch
from objective_toys import outputs_of_scores, random_outputs

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.weighted_sum import WeightedSum


def test_a_sum_is_the_weighted_sum_of_its_terms() -> None:
    outputs = random_outputs("late_interaction")
    own, others = InfoNCE(negatives="own"), InfoNCE(negatives="others")
    both = WeightedSum(objectives=(own, others), weights=(1.0, 0.5))(outputs)
    torch.testing.assert_close(both.loss, own(outputs).loss + 0.5 * others(outputs).loss)
    torch.testing.assert_close(both.metrics["1/loss"], others(outputs).loss.detach())


def test_it_asks_for_what_any_term_needs() -> None:
    symmetric = InfoNCE(directions=("query_to_document", "document_to_query"))
    assert WeightedSum(objectives=(InfoNCE(), symmetric)).needs_all_queries
    assert not WeightedSum(objectives=(InfoNCE(),)).needs_all_queries


def test_colbert_and_pylate_treat_a_querys_own_negatives_differently() -> None:
    """Two queries with a positive and a negative each, scores by hand, temperature 1."""
    outputs = outputs_of_scores([[2.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    unit = InfoNCE(temperature=1.0)
    pylate = unit(outputs).loss
    in_batch = unit.model_copy(update={"negatives": "others"})(outputs).loss
    e = torch.tensor(1.0, dtype=torch.float64).exp()
    rows = ((e**2, e, 2), (e**3, 1.0, 2))  # own positive, own negative, two documents of score 0
    torch.testing.assert_close(
        pylate, torch.stack([-(p / (p + n + z)).log() for p, n, z in rows]).mean()
    )
    torch.testing.assert_close(
        in_batch, torch.stack([-(p / (p + z)).log() for p, _, z in rows]).mean()
    )
