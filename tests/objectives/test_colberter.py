from dataclasses import replace

import pytest
import torch
from objective_toys import random_outputs

from embedtrain.errors import UserError
from embedtrain.objectives.colberter import ColBERTer
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import RetrievalOutputs

INNER = InfoNCE(temperature=0.3)


def outputs() -> RetrievalOutputs:
    """A query's vector of the whole text carries its share of 0.25 already, as the model gives it."""
    plain, generator = random_outputs("late_interaction"), torch.Generator().manual_seed(9)
    query, document = (
        replace(side, cls=torch.randn(len(side), 3, generator=generator, dtype=torch.float64))
        for side in (plain.query, plain.document)
    )
    share = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    query = replace(query, cls=query.cls * share)
    gate = torch.tensor(0.7, dtype=torch.float64)
    return replace(plain, query=query, document=document, cls_share=share, gate=gate)


def test_the_loss_adds_the_dense_loss_and_the_price_of_the_gates() -> None:
    made = outputs()
    dense = replace(made, query=made.query.cls / 0.25, document=made.document.cls)
    expected = INNER(made).loss + 0.5 * INNER(dense).loss + 2.0 * 0.7
    found = ColBERTer(inner=INNER, cls_weight=0.5, gate_l1=2.0)(made).loss
    torch.testing.assert_close(found, expected)


def test_the_dense_loss_does_not_move_the_share() -> None:
    made = outputs()
    alone = ColBERTer(inner=INNER, cls_weight=1.0)(made).loss - INNER(made).loss
    (gradient,) = torch.autograd.grad(alone, made.cls_share)
    assert abs(gradient.item()) < 1e-12


@pytest.mark.parametrize(
    ("settings", "missing", "message"),
    [({"gate_l1": 1.0}, "gate", "needs a gate"), ({}, "cls_share", "whole text")],
)
def test_parts_the_model_lacks_are_refused(settings, missing, message) -> None:
    made = replace(outputs(), **{missing: None})
    with pytest.raises(UserError, match=message):
        ColBERTer(inner=INNER, **settings)(made)
