from dataclasses import replace

import pytest
import torch
from objective_toys import random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.xtr import XTR
from embedtrain.types import Relevance, RetrievalOutputs, TokenEmbeddings


def toy() -> RetrievalOutputs:
    """The toy of the paper's specification: scores 1.0 and 1.0 for one token, 0.9 and 1.0 for two."""
    query = TokenEmbeddings(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([2]))
    documents = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    rows = torch.zeros(2, dtype=torch.int64)
    relevance = Relevance(rows[:1], torch.arange(2), rows, rows[:1, None], torch.full((1, 1), -1))
    return RetrievalOutputs(query, TokenEmbeddings(documents, torch.tensor([2, 2])), relevance)


@pytest.mark.parametrize(("top_k", "scores"), [(1, (1.0, 1.0)), (2, (0.9, 1.0))])
def test_the_loss_contrasts_the_scores_of_retrieved_tokens(top_k, scores) -> None:
    expected = -torch.tensor(scores).log_softmax(0)[0]
    torch.testing.assert_close(XTR(top_k=top_k, temperature=1.0)(toy()).loss, expected)


def test_positives_of_which_no_token_was_retrieved_are_counted() -> None:
    outputs = toy()
    second = TokenEmbeddings(outputs.query.tokens[1:], torch.tensor([1]))
    for query, ratio in ((outputs.query, 1.0), (second, 0.0)):
        result = XTR(top_k=1, temperature=1.0)(replace(outputs, query=query))
        assert float(result.metrics["retrieved_positive_ratio"]) == ratio


def test_retrieving_everything_contrasts_the_mean_of_maxsim() -> None:
    outputs = random_outputs("late_interaction")
    query = replace(
        outputs.query,
        tokens=outputs.query.tokens
        / outputs.query.lengths.repeat_interleave(outputs.query.lengths)[:, None],
    )
    expected = InfoNCE(temperature=0.1)(replace(outputs, query=query)).loss
    torch.testing.assert_close(XTR(top_k=10_000, temperature=0.1)(outputs).loss, expected)


def test_one_vector_per_text_is_refused() -> None:
    with pytest.raises(UserError, match="several vectors"):
        XTR()(random_outputs("dense"))


def test_a_retrieved_positive_counts_whatever_its_sign() -> None:
    outputs = toy()
    query = TokenEmbeddings(-outputs.query.tokens, outputs.query.lengths)
    found = XTR(top_k=10, temperature=1.0)(replace(outputs, query=query))
    assert float(found.metrics["retrieved_positive_ratio"]) == 1
