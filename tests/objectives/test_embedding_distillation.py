from dataclasses import replace

import pytest
import torch
from objective_toys import GROUP, number, random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.embedding_distillation import EmbeddingDistillation
from embedtrain.ops.similarity import all_scores
from embedtrain.types import GuideEmbeddings


def guided(outputs, query, document):
    return replace(outputs, guide=GuideEmbeddings(query, document, query))


def test_a_value_worked_by_hand():
    outputs = random_outputs()
    query, document = outputs.query.detach() + 0.5, outputs.document.detach() - 0.25
    loss = EmbeddingDistillation()(guided(outputs, query, document)).loss
    assert number(loss) == pytest.approx(6 * 0.25 + 6 * 0.0625)
    alone = EmbeddingDistillation(sides=("query",))(guided(outputs, query, document)).loss
    assert number(alone) == pytest.approx(6 * 0.25)


def test_a_student_that_agrees_has_no_loss():
    outputs = random_outputs()
    same = guided(outputs, outputs.query.detach(), outputs.document.detach())
    for kind in ("mse", "cosine", "similarity"):
        assert number(EmbeddingDistillation(kind=kind)(same).loss) == pytest.approx(0, abs=1e-15)


def test_cosine_does_not_see_lengths():
    outputs = random_outputs()
    longer = guided(outputs, 3 * outputs.query.detach(), 2 * outputs.document.detach())
    assert number(EmbeddingDistillation(kind="cosine")(longer).loss) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("kind", ["dense", "late_interaction"])
def test_similarities_are_compared_over_the_batch_whatever_the_dimension(kind):
    outputs = random_outputs(kind)
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    document = torch.randn(5 * GROUP, 9, generator=generator, dtype=torch.float64)
    loss = EmbeddingDistillation(kind="similarity")(guided(outputs, query, document)).loss
    scores = all_scores(outputs.query, outputs.document)
    assert torch.isclose(loss, (scores - query @ document.T).square().mean())


def test_another_dimension_is_refused_with_its_cure():
    outputs = random_outputs()
    query = torch.zeros(5, 9, dtype=torch.float64)
    with pytest.raises(UserError, match=r"model\.projection=9"):
        EmbeddingDistillation()(guided(outputs, query, torch.zeros(20, 9, dtype=torch.float64)))
