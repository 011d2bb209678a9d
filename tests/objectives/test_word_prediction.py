from dataclasses import replace

import pytest
import torch
from objective_toys import number, random_outputs

from embedtrain.code_types import WordPrediction
from embedtrain.errors import UserError
from embedtrain.objectives.word_prediction import WordPredictionLoss
from embedtrain.ops.linear_cross_entropy import UNLABELLED


def test_it_is_the_cross_entropy_of_the_words_that_are_one_token():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(9, 5, generator=generator, dtype=torch.float64).split([4, 1], dim=1)
    words = torch.tensor([3, UNLABELLED, 0, 8, 3])
    found = WordPrediction(hidden, weight.contiguous(), bias[:, 0].contiguous(), words)
    output = WordPredictionLoss()(replace(random_outputs(), word_prediction=found))
    scores = hidden @ weight.T + bias[:, 0]
    each = [scores[row].logsumexp(0) - scores[row, words[row]] for row in (0, 2, 3, 4)]
    expected = sum(each) / 5
    torch.testing.assert_close(output.loss, expected)
    assert float(output.metrics["labelled_ratio"]) == 0.8
    one, other = (torch.autograd.grad(loss, hidden)[0] for loss in (output.loss, expected))
    torch.testing.assert_close(one, other)


def test_a_batch_without_such_a_word_costs_nothing_and_a_model_without_a_head_is_refused():
    hidden, words = torch.randn(5, 4, requires_grad=True), torch.full((5,), UNLABELLED)
    found = WordPrediction(hidden, torch.randn(9, 4), None, words)
    output = WordPredictionLoss()(replace(random_outputs(), word_prediction=found))
    output.loss.backward()
    assert number(output.loss) == 0
    assert float(hidden.grad.abs().sum()) == 0
    with pytest.raises(UserError, match=r"Set model\.word_head"):
        WordPredictionLoss()(random_outputs())
