from dataclasses import replace

import pytest
import torch
from objective_toys import number
from sts_toys import pairs_of_vectors

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.objectives.pair_classification import PairClassification


def outputs(labels: list[float], classes: int = 3):
    generator = torch.Generator().manual_seed(0)
    query, document = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, 15, generator=generator, requires_grad=True)
    return replace(pairs_of_vectors(query, document, labels), pair_classifier=weight)


def test_it_is_the_cross_entropy_over_both_vectors_and_their_distance() -> None:
    found = outputs([0.0, 2.0, 1.0, 2.0])
    u, v, w = found.query, found.document, found.pair_classifier.double()
    logits = u @ w[:, :5].T + v @ w[:, 5:10].T + (u - v).abs() @ w[:, 10:].T
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2, 1, 2]))
    torch.testing.assert_close(PairClassification()(found).loss, expected)


def test_only_the_distance_block_does_not_care_which_text_comes_first() -> None:
    found = outputs([0.0, 2.0, 1.0, 2.0])
    swapped = replace(found, query=found.document, document=found.query)
    loss = PairClassification()
    assert number(loss(found).loss) != pytest.approx(number(loss(swapped).loss))
    weight = found.pair_classifier.detach().clone()
    weight[:, :10] = 0
    one, other = (loss(replace(o, pair_classifier=weight)).loss for o in (found, swapped))
    torch.testing.assert_close(one, other)


def test_sources_have_parts_of_one_classifier_for_themselves() -> None:
    found = outputs([0.0, 1.0, 1.0, 0.0], classes=5)
    own = replace(found, pair_classifier=found.pair_classifier[2:4])
    part = PairClassification(first=2, count=2)
    torch.testing.assert_close(part(found).loss, PairClassification()(own).loss)
    gradient = torch.autograd.grad(part(found).loss, found.pair_classifier)[0]
    assert gradient[2:4].abs().min() > 0
    assert not gradient[[0, 1, 4]].any()
    with pytest.raises(UserError, match=r"number of classes in the rows; got 2"):
        part(outputs([2.0, 1.0, 1.0, 0.0], classes=5))


def test_classes_the_classifier_lacks_and_models_without_one_are_refused() -> None:
    with pytest.raises(UserError, match="number of classes"):
        PairClassification()(outputs([0.0, 3.0, 1.0, 2.0]))
    with pytest.raises(UserError, match=r"model\.pair_classes"):
        PairClassification()(replace(outputs([0.0] * 4), pair_classifier=None))


def test_the_classifier_is_not_exported(bert, tmp_path) -> None:
    from embedtrain.models.build import load_dense, save_encoder

    model = build_dense(DenseConfig(backbone=bert, pair_classes=3))
    assert model.pair_classifier.weight.shape == (3, 96)
    save_encoder(model, tmp_path)
    assert load_dense(str(tmp_path)).pair_classifier is None
