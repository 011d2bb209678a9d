"""Groups of unequal size whose documents lie mixed, with one of another rank among them."""

import pytest
import torch

from embedtrain.ops.groups import Groups, score_groups, teacher_groups
from embedtrain.types import Relevance, RetrievalOutputs

OWNERS = [1, 0, 2, 1, 7, 0, 1, 1]
COLUMNS = [[1, 5, -1, -1], [0, 3, 6, 7], [2, -1, -1, -1]]


@pytest.fixture
def mixed() -> RetrievalOutputs:
    """Document j scores (j + 1) / 10 for the query that brought it; query 1 has two positives."""
    numbers = torch.arange(1, 9)
    relevance = Relevance(
        query_ids=torch.arange(3),
        document_ids=numbers + 100,
        owners=torch.tensor(OWNERS),
        positives=torch.tensor([[1, -1], [0, 6], [2, -1]]),
        known_positives=torch.full((3, 1), -1),
        teacher_scores=numbers.float(),
    )
    document = (numbers.double() / 10)[:, None].expand(-1, 3)
    return RetrievalOutputs(torch.eye(3, dtype=torch.float64), document, relevance)


@pytest.fixture
def groups(mixed) -> Groups:
    return score_groups(mixed)


def test_each_query_has_its_own_documents_in_their_order_and_nothing_else(groups):
    assert groups.columns.tolist() == COLUMNS
    scores = [[0.2, 0.6, 0, 0], [0.1, 0.4, 0.7, 0.8], [0.3, 0, 0, 0]]
    assert groups.scores.tolist() == [pytest.approx(row) for row in scores]


def test_unused_places_are_neither_positives_nor_negatives(groups):
    yes, no = True, False
    assert groups.positives.tolist() == [[yes, no, no, no], [yes, no, yes, no], [yes, no, no, no]]
    assert groups.negatives.tolist() == [[no, yes, no, no], [no, yes, no, yes], [no, no, no, no]]


def test_the_teachers_scores_stand_beside_and_unused_places_hold_0(mixed, groups):
    assert teacher_groups(mixed, groups).tolist() == [[2, 6, 0, 0], [1, 4, 7, 8], [3, 0, 0, 0]]
