"""Objectives that hold others need what those need."""

import pytest

from embedtrain.objectives.colberter import ColBERTer
from embedtrain.objectives.gist import GIST
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.multi_exit import MultiExit
from embedtrain.objectives.self_distillation import SelfDistillation
from embedtrain.objectives.weighted_sum import WeightedSum

SYMMETRIC = InfoNCE(directions=("query_to_document", "query_to_query"))
HOLDERS = {
    "colberter": lambda inner: ColBERTer(inner=inner),
    "matryoshka": lambda inner: Matryoshka(dims=(8, 4), inner=inner),
    "multi exit": lambda inner: MultiExit(inner=inner),
    "self distillation": lambda inner: SelfDistillation(inner=inner),
    "sum": lambda inner: WeightedSum(objectives=(InfoNCE(), inner)),
    "two deep": lambda inner: Matryoshka(
        dims=(8, 4), inner=WeightedSum(objectives=(inner, InfoNCE()))
    ),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_what_an_inner_objective_needs_is_asked_for(hold):
    assert not hold(InfoNCE()).needs_all_queries
    assert hold(SYMMETRIC).needs_all_queries
    assert not hold(InfoNCE()).uses_guide
    assert hold(GIST()).uses_guide
