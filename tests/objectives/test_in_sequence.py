"""Chunks of one document told apart, and from those of others (InSeNT): a sum of two InfoNCE, by hand.

Source: Conti et al. (2025), https://arxiv.org/abs/2505.24782.
"""

import math

import pytest
import torch
from objective_toys import number
from pydantic import TypeAdapter

from embedtrain.objectives import AnyObjective
from embedtrain.ops.groups import group_columns
from embedtrain.types import Relevance, RetrievalOutputs

CHUNKS = torch.tensor([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=torch.float64)
"""Two of document A, then two of document B."""
ASKED = torch.tensor([[1, 0], [0, 1], [0.6, 0.8]], dtype=torch.float64)
"""Answered by the first chunk of A, the second of A, the first of B."""
GOLD = torch.tensor([[0], [1], [2]])


def outputs_of(queries: list[int]) -> RetrievalOutputs:
    """Return queries over the four chunks, which the first query of each document brought."""
    brought_by = {number // 2: row for row, number in reversed(list(enumerate(queries)))}
    documents = torch.arange(4)
    relevance = Relevance(
        query_ids=torch.tensor(queries),
        document_ids=documents + 100,
        owners=torch.tensor([brought_by[0]] * 2 + [brought_by[1]] * 2),
        positives=GOLD[queries],
        known_positives=torch.full((len(queries), 1), -1),
        query_owners=torch.tensor([brought_by[number // 2] for number in queries]),
    )
    return RetrievalOutputs(ASKED[queries].clone().requires_grad_(), CHUNKS, relevance)


def in_sequence(weight: float, outputs: RetrievalOutputs, backend: str) -> torch.Tensor:
    """Return weight times the loss within the document and the rest of that among documents."""
    parts = [
        {"name": "info_nce", "temperature": 1.0, "negatives": negatives, "backend": backend}
        for negatives in ("own", "others")
    ]
    content = {"name": "sum", "objectives": parts, "weights": [weight, 1 - weight]}
    return TypeAdapter(AnyObjective).validate_python(content)(outputs).loss


def by_hand(weight: float, queries: list[int]) -> float:
    """Loop over queries: a softmax over the chunks of the document, one over those of other documents."""
    total = 0.0
    for asked in queries:
        scores = [float(ASKED[asked] @ chunk) for chunk in CHUNKS]
        document, gold = asked // 2, scores[int(GOLD[asked])]
        own = sum(math.exp(scores[chunk]) for chunk in range(4) if chunk // 2 == document)
        others = sum(math.exp(scores[chunk]) for chunk in range(4) if chunk // 2 != document)
        total += weight * (math.log(own) - gold)
        total += (1 - weight) * (math.log(math.exp(gold) + others) - gold)
    return total / len(queries)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize(("weight", "expected"), [(0.5, 0.452093), (0.1, 0.563157)])
def test_one_query_costs_what_the_paper_says(weight, expected, backend):
    assert by_hand(weight, [0]) == pytest.approx(expected, abs=1e-6)
    outputs = outputs_of([0, 2])
    both = in_sequence(weight, outputs, backend)
    assert number(both) == pytest.approx(by_hand(weight, [0, 2]), abs=1e-12)
    (gradient,) = torch.autograd.grad(both, outputs.query)
    assert gradient[0].abs().max() > 0.1


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_second_query_of_a_document_finds_the_candidates_that_the_first_brought(backend):
    found = in_sequence(0.5, outputs_of([0, 1, 2]), backend)
    assert number(found) == pytest.approx(by_hand(0.5, [0, 1, 2]), abs=1e-12)


def test_groups_of_queries_that_share_candidates_are_the_same():
    columns = group_columns(outputs_of([2, 0, 1]).relevance)
    assert columns.tolist() == [[2, 3], [0, 1], [0, 1]]
