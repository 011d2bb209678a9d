"""Wishes and plans of a fit, by words that a test gives."""

from embedtrain.data.examples import Example
from embedtrain.workflows.fit.compose import compose
from embedtrain.workflows.fit.costs import Asked
from embedtrain.workflows.fit.look import Material, Speed
from embedtrain.workflows.fit.plan import make_plan
from embedtrain.workflows.fit.wish import FitWish

SAMPLE = (Example("a", ("b",)),)
SPEED = Speed(1e-5, 200.0, 20.0, 22_000_000)
"""A small model on two cores: 1 ms for a text."""


def wish(**given):
    words = {"corpus": None, "pairs": None, "queries": None, "llm": None, "model": "base"}
    return FitWish.model_validate({**words, "guards": (), "seconds": 1800.0, **given})


def plan(budget=1800.0, documents=2_000, rows=2_000, speed=SPEED, **given):
    return make_plan(Asked(budget, **given), Material(documents, rows, SAMPLE), speed)


def stages_of(asked, found):
    return {one.name: one for one in compose(asked, found).stages}
