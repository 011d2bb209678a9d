"""A training step on a GPU makes the host wait for nothing; counted on a shadow device."""

import pytest
from shadow import ShadowCuda
from shadow_step import module_of, run_steps

WAYS = {
    "plain": {},
    "chunked": {"chunk_tokens": 100},
    "rematerialised": {"chunk_tokens": 100, "rematerialize": True},
    "packed": {"model": {"packing": "packed"}},
    "padded": {"model": {"packing": "padded"}},
}
EVERYTHING = {"gradient_clip": 1.0, "accumulate": 2}


@pytest.mark.parametrize("everything", [False, True], ids=["alone", "everything"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["dense", "late_interaction"])
def test_a_step_never_waits_for_the_device(bert, kind, way, precision, everything):
    settings = {"precision": precision} | WAYS[way]
    if everything:
        learned = {"learn_temperature": 0.05 if kind == "dense" else 1.0}
        settings |= EVERYTHING | {"model": settings.get("model", {}) | learned}
    module = module_of(bert, kind, **settings)
    with ShadowCuda() as shadow:
        _, step = run_steps(shadow, module)
    assert not step.waits, shadow.report(step)
