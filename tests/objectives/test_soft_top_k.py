from dataclasses import replace

import pytest
import torch
from objective_toys import random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.soft_top_k import SoftTopK, top_k_log_sigmoid
from embedtrain.ops import row_blocks
from embedtrain.ops.row_blocks import candidate_masks
from embedtrain.ops.similarity import all_scores


def test_the_sigmoids_of_a_row_sum_to_k_over_its_candidates():
    generator = torch.Generator().manual_seed(0)
    scores = 5 * torch.randn(4, 12, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 12, generator=generator) < 0.8
    inside = top_k_log_sigmoid(scores, mask, 3, 2.0).exp() * mask
    assert torch.allclose(inside.sum(1), torch.tensor(3.0, dtype=torch.float64))


def test_the_gradient_knows_that_the_threshold_moves():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(3, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 7, generator=generator) < 0.9
    assert torch.autograd.gradcheck(lambda x: top_k_log_sigmoid(x, mask, 2, 2.0), [scores])


def test_of_equal_scores_each_is_inside_with_probability_k_over_all():
    scores = torch.zeros(1, 10, dtype=torch.float64)
    found = top_k_log_sigmoid(scores, torch.ones(1, 10, dtype=torch.bool), 4, 2.0)
    assert torch.allclose(found.exp(), torch.tensor(0.4, dtype=torch.float64))


def test_blocks_of_queries_change_nothing(monkeypatch):
    whole, parts = random_outputs(), random_outputs()
    SoftTopK(k=2)(whole).loss.backward()
    monkeypatch.setattr(row_blocks.mean_over_queries, "__kwdefaults__", {"scores_at_once": 25})
    SoftTopK(k=2)(parts).loss.backward()
    torch.testing.assert_close(whole.query.grad, parts.query.grad)
    torch.testing.assert_close(whole.document.grad, parts.document.grad)


def test_a_batch_with_too_few_documents_is_refused():
    with pytest.raises(UserError, match="must be less than the documents"):
        SoftTopK(k=20)(random_outputs())


def test_several_positives_are_averaged():
    outputs = random_outputs()
    both = torch.cat([outputs.relevance.positives, outputs.relevance.positives + 1], 1)
    relevance = replace(outputs.relevance, positives=both)
    scores = all_scores(outputs.query, outputs.document) / 0.3
    _, negative = candidate_masks(replace(outputs, relevance=relevance), torch.arange(5))
    mask = negative.scatter(1, both, True)
    expected = -top_k_log_sigmoid(scores, mask, 3, 2.0).gather(1, both).mean()
    found = SoftTopK(k=3, temperature=0.3)(replace(outputs, relevance=relevance)).loss
    torch.testing.assert_close(found, expected)
