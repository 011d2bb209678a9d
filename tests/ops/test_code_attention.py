"""Queries of several vectors to which a document attends, against the formula pair by pair."""

import torch

from embedtrain.interaction_types import CodeAttention
from embedtrain.ops.interaction import interaction_pairs, interaction_scores


def test_each_pair_is_the_published_formula():
    generator = torch.Generator().manual_seed(0)
    form = CodeAttention(4)
    query = torch.randn(3, 4 * 5, generator=generator, dtype=torch.float64)
    document = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    found = interaction_scores(form, query, document)
    for row, numbers in enumerate(query):
        for column, d in enumerate(document):
            vectors = numbers.view(4, 5)
            weights = torch.tensor([torch.dot(y, d).exp() for y in vectors]).double()
            context = sum(w * y for w, y in zip(weights / weights.sum(), vectors, strict=True))
            torch.testing.assert_close(found[row, column], torch.dot(context, d))
    owners = torch.tensor([2, 0, 1, 1, 0, 2])
    pairs = interaction_pairs(form, query, document, owners)
    torch.testing.assert_close(pairs, found[owners, torch.arange(6)])


def test_one_code_is_the_inner_product():
    query, document = torch.randn(2, 4, 5, dtype=torch.float64).unbind()
    torch.testing.assert_close(
        interaction_scores(CodeAttention(1), query, document), query @ document.T
    )
