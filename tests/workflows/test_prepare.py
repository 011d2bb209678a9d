"""What the machine that begins a run writes into its recipe."""

import pytest
from torch import nn

from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.prepare import with_machine


@pytest.fixture
def recipe(pairs, bert):
    task = {"path": "a", "split": "dev"}
    return load_recipe(
        {
            "data": {"sources": [{"path": str(pairs)}]},
            "model": {"backbone": bert},
            "trainer": {"steps": 1, "precision": "fp32"},
            "validation": task,
            "evaluation": {**task, "split": "test"},
        }
    )


def test_a_run_measures_in_the_precision_of_the_machine_that_began_it(recipe):
    shadow = pytest.importorskip("shadow")
    with shadow.ShadowCuda() as device:
        begun = with_machine(recipe, device.move(nn.Linear(2, 2)))
    gone_on = with_machine(begun, nn.Linear(2, 2))
    for one in (begun, gone_on):
        assert (one.validation.precision, one.evaluation.precision) == ("bf16", "bf16")
    here = with_machine(recipe, nn.Linear(2, 2))
    assert (here.validation.precision, here.evaluation.precision) == ("fp32", "fp32")


def test_negatives_are_mined_in_the_precision_of_the_machine_that_began_it(recipe):
    content = recipe.model_dump()
    content["data"]["sources"][0]["negatives"] = {"retriever": "a"}
    recipe = load_recipe(content)
    shadow = pytest.importorskip("shadow")
    with shadow.ShadowCuda() as device:
        begun = with_machine(recipe, device.move(nn.Linear(2, 2)))
    for one, precision in ((begun, "bf16"), (with_machine(begun, nn.Linear(2, 2)), "bf16")):
        assert one.data.sources[0].negatives.mining.precision == precision
    here = with_machine(recipe, nn.Linear(2, 2))
    assert here.data.sources[0].negatives.mining.precision == "fp32"


def test_a_precision_that_was_asked_for_is_kept_and_what_is_not_measured_stays_out(recipe):
    asked = recipe.evaluation.model_copy(update={"precision": "fp16"})
    changed = recipe.model_copy(update={"validation": None, "evaluation": asked})
    found = with_machine(changed, nn.Linear(2, 2))
    assert (found.validation, found.evaluation) == (None, asked)
