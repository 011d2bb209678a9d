"""The benchmark's slow versions must be the same thing, or its figures would mean nothing."""

import sys

import pytest
from places import SCRIPTS


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_pretraining

    yield benchmark_pretraining
    sys.modules.pop("benchmark_pretraining")


def test_the_loop_draws_the_very_masks(benchmark):
    texts, starts = benchmark.random_texts(3, 40)
    encoder, decoder = benchmark.masks_at_once(texts, starts, 7)
    by_loop = benchmark.masks_by_loop(texts, starts, 7)
    assert (encoder.tolist(), decoder.tolist()) == by_loop


def test_the_logits_of_all_tokens_give_the_same_loss(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "VOCABULARY", 1200)
    model, batch = benchmark.build("retromae")
    model.eval()
    loss = benchmark.PRETRAIN_OBJECTIVES["retromae"]()(model(batch, benchmark.WHOLE)).loss
    assert abs(loss - benchmark.loss_with_all_logits(model, batch)) < 1e-4
