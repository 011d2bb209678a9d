import pytest
from torch import nn

from embedtrain.training.optimizer import build_optimizer, learning_rate_factor
from embedtrain.training.settings import TrainerConfig


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    matrices, vectors = build_optimizer(
        model, TrainerConfig(steps=1, weight_decay=0.3)
    ).param_groups
    assert {p.ndim for p in matrices["params"]} == {2}
    assert matrices["weight_decay"] == 0.3
    assert {p.ndim for p in vectors["params"]} == {1}
    assert vectors["weight_decay"] == 0.0
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(schedule):
    factor = learning_rate_factor(
        TrainerConfig(steps=100, warmup_ratio=0.1, schedule=schedule), 100
    )
    values = [factor(step) for step in range(101)]
    assert 0 < values[0] < 0.2
    assert max(values) == values[10] == 1.0
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[100] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-12)
