import math

import pytest
import torch

from embedtrain.ops.straight_through import TYPICAL_COSINE, straight_through


def passed(
    values: list[float], kind: str, through: str = "clipped"
) -> tuple[list[float], list[float]]:
    """Return what the codes stand for, and the gradient of their sum."""
    vector = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    result = straight_through(vector, kind, through)
    result.sum().backward()
    return result[0].tolist(), vector.grad[0].tolist()


def test_a_byte_is_a_step_of_a_127th():
    values, gradient = passed([0.6, -0.8], "int8")
    assert values == pytest.approx([76 / 127, -102 / 127])
    assert gradient == [1, 1]
    values, gradient = passed([1.5, -0.25], "int8")
    assert values == pytest.approx([1, -32 / 127])
    assert gradient == [0, 1]


def test_bits_pass_the_gradient_of_coordinates_that_are_not_large():
    values, gradient = passed([0.2, -0.8, 0.75, -0.1], "binary")
    assert values == [0.5, -0.5, 0.5, -0.5]
    assert gradient == [1, 0, 1, 1]
    assert passed([0.2, -0.8, 0.75, -0.1], "binary", "identity")[1] == [1, 1, 1, 1]


def test_a_tanh_passes_little_where_coordinates_have_their_usual_size():
    _, gradient = passed([0.0, 0.25, 0.5, 0.0], "binary", "tanh")
    assert gradient[:3] == pytest.approx([3, 3 * (1 - math.tanh(1.5) ** 2), 0.0296], abs=1e-4)


def test_zero_is_positive_and_nothing_is_left_of_small_coordinates():
    assert passed([0.0, -0.0, 1.0, -1.0], "binary")[0] == [0.5, 0.5, 0.5, -0.5]
    values, _ = passed([0.9, -0.4, 0.1, -0.1], "ternary")  # 1.8, -0.8, 0.2, -0.2 times a half
    assert values == pytest.approx([0.5**0.5, -(0.5**0.5), 0, 0])
    assert passed([0.0, 0.0], "ternary")[0] == [0, 0]


@pytest.mark.parametrize("kind", ["int8", "binary", "ternary"])
def test_scores_shrink_by_what_is_known_of_gaussian_vectors(kind):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2000, 384, generator=generator)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    cosines = torch.cosine_similarity(vectors, straight_through(vectors, kind))
    assert float(cosines.mean()) == pytest.approx(TYPICAL_COSINE[kind], abs=1e-3)


def test_scores_of_bits_with_bits_follow_the_arcsine():
    generator = torch.Generator().manual_seed(1)
    first, other = torch.nn.functional.normalize(
        torch.randn(2, 4000, 384, generator=generator), dim=2
    )
    other = torch.nn.functional.normalize(
        other - (first * other).sum(1, keepdim=True) * first, dim=1
    )
    near = 0.5 * first + 0.75**0.5 * other  # cosine 0.5 with ``first``, exactly
    bits = straight_through(near, "binary")
    halves = (first * bits).sum(1)
    both = (straight_through(first, "binary") * bits).sum(1)
    assert float(halves.mean()) == pytest.approx(0.399, abs=0.0015)
    assert float(halves.std()) == pytest.approx(0.0272, rel=0.05)
    assert float(both.mean()) == pytest.approx(2 / math.pi * math.asin(0.5), abs=0.002)
    assert float(both.std()) == pytest.approx(0.0388, rel=0.05)
