from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, gram_of, number, random_outputs
from pydantic import ValidationError
from sts_toys import pairs_of_vectors

from embedtrain.objectives.cosent import CoSENT
from embedtrain.objectives.d2llm import D2LLM
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.labelled_positives import LabelledPositives


def outputs(labels: list[float]):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    document = torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    return pairs_of_vectors(query, document, labels)


def test_unlike_pairs_are_no_queries_but_stay_candidates() -> None:
    found = outputs([1.0, 0.2, 0.9, 0.8])
    scores = (found.query @ found.document.T).detach() / 0.05
    rows = scores[[0, 2]].logsumexp(1) - scores[[0, 2], [0, 2]]
    loss = LabelledPositives(inner=InfoNCE(), threshold=0.85)(found).loss
    torch.testing.assert_close(loss, rows.sum() / 4)


def test_all_positive_pairs_are_the_inner_objective() -> None:
    found = outputs([1.0] * 4)
    torch.testing.assert_close(
        LabelledPositives(inner=InfoNCE())(found).loss, InfoNCE()(found).loss
    )


def test_a_batch_without_positive_pairs_costs_nothing_and_has_a_gradient_of_zeros() -> None:
    found = outputs([0.0] * 4)
    loss = LabelledPositives(inner=InfoNCE())(found).loss
    loss.backward()
    assert number(loss) == 0
    assert not found.query.grad.any()


def test_an_inner_objective_that_needs_other_queries_is_refused() -> None:
    with pytest.raises(ValidationError, match="own queries"):
        LabelledPositives(inner=CoSENT())


def test_the_own_negatives_of_a_positive_pair_are_not_those_of_others() -> None:
    inner = InfoNCE(negatives="own")  # each pair brings one document: nobody has an own negative
    loss = LabelledPositives(inner=inner, threshold=0.85)(outputs([1.0, 0.2, 0.9, 0.8])).loss
    assert number(loss) == 0


def test_what_a_teacher_sees_goes_with_the_queries_that_are_left() -> None:
    found = random_outputs()
    gram = gram_of(5)
    found = replace(found, relevance=replace(found.relevance, teacher_gram=gram))
    labels = found.relevance.teacher_scores[::GROUP]
    threshold = labels.median().item()
    own = found.document.detach().reshape(5, GROUP, -1)
    of_each = (own @ own.mT - gram).square().mean((1, 2))
    inner = D2LLM(feature_weight=1.0)
    metrics = LabelledPositives(inner=inner, threshold=threshold)(found).metrics
    torch.testing.assert_close(metrics["feature"], of_each[labels >= threshold].mean())
