import pytest
import torch

from embedtrain.training.module import suspected_false_negatives
from embedtrain.types import Relevance, RetrievalOutputs


def test_negatives_near_the_positive_are_suspected_and_known_positives_are_not():
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    document = torch.tensor([[0.8, 0.0], [0.8, 0.1], [0.77, 0.0], [0.5, 0.0]])
    relevance = Relevance(
        query_ids=torch.tensor([1, 2]),
        document_ids=torch.tensor([10, 11, 12, 13]),
        owners=torch.tensor([0, 1, 0, 1]),
        positives=torch.tensor([[0], [1]]),
        known_positives=torch.tensor([[10, 11], [11, -1]]),
    )
    share = suspected_false_negatives(RetrievalOutputs(query, document, relevance))
    # Query 0: negatives 12, 13, of which 12 (0.77 > 0.76). Query 1: 10, 12, 13, of which 10 and 12.
    assert float(share) == pytest.approx(3 / 5)
