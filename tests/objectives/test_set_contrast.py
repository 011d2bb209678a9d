import pytest
import torch
from objective_toys import number
from sts_toys import pairs_of_vectors

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.set_contrast import SetContrast


def outputs(labels: list[float]):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    document = torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    return pairs_of_vectors(query, document, labels)


def test_members_of_the_same_set_are_neither_positives_nor_negatives() -> None:
    found = outputs([0.0, 0.0, 1.0, 2.0])
    scores = (found.query @ found.document.T).detach() / 0.5
    expected = []
    for i, others in enumerate([[2, 3], [2, 3], [0, 1, 3], [0, 1, 2]]):
        candidates = torch.stack([scores[i, i], *scores[i, others]])
        expected.append(candidates.logsumexp(0) - scores[i, i])
    loss = SetContrast(temperature=0.5)(found).loss
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_sets_of_one_sentence_each_are_plain_info_nce() -> None:
    found = outputs([0.0, 1.0, 2.0, 3.0])
    plain = InfoNCE(temperature=0.05)(found).loss
    torch.testing.assert_close(SetContrast()(found).loss, plain)


def test_one_set_alone_costs_nothing() -> None:
    assert number(SetContrast()(outputs([1.0] * 4)).loss) == pytest.approx(0)
