import pytest
import torch
from objective_toys import number, random_outputs
from sts_toys import pairs_of_vectors

from embedtrain.errors import UserError
from embedtrain.objectives.angle import AnglE, angle_similarity
from embedtrain.ops.scored_pairs import order_loss


def vectors(seed: int, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, dim, generator=generator, dtype=torch.float64)


def test_it_is_the_quotient_of_complex_vectors() -> None:
    """The released code's form: real and imaginary part of x conj(y) / |y|^2, over |x| / |y|, summed."""
    x, y = vectors(0), vectors(1)
    (a, b), (c, d) = x.chunk(2, 1), y.chunk(2, 1)
    lengths = (y.square().sum(1, keepdim=True), (x.norm(dim=1) / y.norm(dim=1))[:, None])
    real, imaginary = (a * c + b * d) / lengths[0], (b * c - a * d) / lengths[0]
    expected = (torch.cat([real, imaginary], 1) / lengths[1]).sum(1).abs()
    torch.testing.assert_close(angle_similarity(x, y), expected)


def test_it_is_cosine_plus_an_antisymmetric_term() -> None:
    x, y = vectors(0), vectors(1)
    (a, b), (c, d) = x.chunk(2, 1), y.chunk(2, 1)
    cosine = torch.cosine_similarity(x, y)
    turned = ((b * c) - (a * d)).sum(1) / x.norm(dim=1) / y.norm(dim=1)
    torch.testing.assert_close(angle_similarity(x, y), (cosine + turned).abs())
    torch.testing.assert_close(angle_similarity(y, x), (cosine - turned).abs())


@pytest.mark.parametrize("dim", [6, 5])
def test_a_text_is_like_itself_and_lengths_do_not_count(dim) -> None:
    x, y = vectors(0, dim), vectors(1, dim)
    torch.testing.assert_close(angle_similarity(x, x), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(angle_similarity(3 * x, y / 2), angle_similarity(x, y))


def test_symmetric_ignores_which_text_is_the_query_and_the_method_does_not() -> None:
    x, y = vectors(0), vectors(1)
    labels = [0.1, 0.4, 0.2, 0.9]
    there, back = pairs_of_vectors(x, y, labels), pairs_of_vectors(y, x, labels)
    assert number(AnglE()(there).loss) != pytest.approx(number(AnglE()(back).loss))
    symmetric = AnglE(symmetric=True)
    torch.testing.assert_close(symmetric(there).loss, symmetric(back).loss)
    mean = (angle_similarity(x, y) + angle_similarity(y, x)) / 2
    expected = order_loss(mean, torch.tensor(labels, dtype=torch.float64), 20.0)
    torch.testing.assert_close(symmetric(there).loss, expected)


def test_several_vectors_per_text_are_refused() -> None:
    with pytest.raises(UserError, match="one vector per text"):
        AnglE()(random_outputs("late_interaction"))
