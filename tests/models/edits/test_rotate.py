"""A turn to principal components keeps every similarity, and its prefixes are the best there are."""

import pytest
import torch

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.edits.rotate import (
    binary_axes,
    check_rotatable,
    principal_axes,
    put_behind,
    rotate_encoder,
    sign_cosine,
    standardize_encoder,
)
from embedtrain.models.static.distil import Words, words_encoder


def test_axes_of_points_on_two_lines():
    """(4, 4) lies on the diagonal with length^2 32, (1, -1) across it with 2."""
    axes, shares = principal_axes(torch.tensor([[4.0, 4.0], [1.0, -1.0]]))
    half = 2**-0.5
    expected = torch.tensor([[half, half], [half, half]], dtype=torch.float64)
    torch.testing.assert_close(axes.abs(), expected)
    assert axes[0].prod() > 0 > axes[1].prod()
    torch.testing.assert_close(shares, torch.tensor([32 / 34, 2 / 34], dtype=torch.float64))


def test_no_rotation_keeps_more_of_the_inner_products_in_a_prefix():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    vectors = 1 + torch.randn(50, 6, generator=generator, dtype=torch.float64) @ mixing

    def error(axes, size):
        short = vectors @ axes[:size].T
        return (vectors @ vectors.T - short @ short.T).norm()

    axes = principal_axes(vectors)[0]
    torch.testing.assert_close(axes @ axes.T, torch.eye(6, dtype=torch.float64))
    for _ in range(20):
        other = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
        for size in range(1, 6):
            assert error(axes, size) < error(other, size)
    centred = torch.linalg.svd(vectors - vectors.mean(0))[2]
    assert error(axes, 1) < error(centred, 1)  # about 0, not about the mean


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("projection", [None, "plain", "with a bias"])
def test_similarities_of_whole_vectors_stay(bert, sentences, similarity, projection):
    torch.manual_seed(0)
    width = None if projection is None else 12
    model = build_dense(DenseConfig(backbone=bert, projection=width, similarity=similarity))
    if projection == "with a bias":
        model.projection.bias = torch.nn.Parameter(torch.randn(12))
    before = torch.from_numpy(encode_texts(model, sentences, "document"))
    rotate_encoder(model, principal_axes(before)[0])
    after = torch.from_numpy(encode_texts(model, sentences, "document"))
    torch.testing.assert_close(after @ after.T, before @ before.T, rtol=1e-5, atol=1e-5)
    moments = after.double().T @ after.double()
    assert (moments - moments.diag().diag()).abs().max() < 1e-4 * moments.max()
    assert (moments.diag().diff() <= 1e-5 * moments.max()).all()


def test_what_has_no_single_plain_vector_is_refused(bert):
    with pytest.raises(UserError, match="no single plain vector"):
        check_rotatable(build_dense(DenseConfig(backbone=bert, exits=(1,))))
    gated = DenseConfig(backbone=bert, query_gate={"kind": "slr", "at_inference": True})
    with pytest.raises(UserError, match="no single plain vector"):
        check_rotatable(build_dense(gated))
    with pytest.raises(UserError, match="no single plain vector"):
        check_rotatable(words_encoder(Words(["red", "cat"]), torch.randn(3, 6)))
    cut = build_dense(DenseConfig(backbone=bert))
    cut.truncate_dim = 8
    with pytest.raises(UserError, match="cut already; got 8"):
        check_rotatable(cut)


def test_two_languages_that_differ_by_place_and_size_meet(bert, sentences):
    """The vectors of the second are 3 x + 5 of the first's."""
    models = [build_dense(DenseConfig(backbone=bert, similarity="dot")) for _ in range(2)]
    dim = models[0].dim
    put_behind(models[1], 3 * torch.eye(dim).double(), torch.full((dim,), 5.0).double())
    texts = list(dict.fromkeys(sentences))

    def found() -> float:
        one, other = (
            torch.nn.functional.normalize(
                torch.from_numpy(encode_texts(model, texts, "document")), dim=1
            )
            for model in models
        )
        return float(((one @ other.T).argmax(1) == torch.arange(len(texts))).float().mean())

    assert found() < 0.6
    for model in models:
        standardize_encoder(model, torch.from_numpy(encode_texts(model, texts, "document")))
    assert found() == 1.0


def test_corners_of_a_cube_that_was_turned_are_turned_back_onto_their_signs():
    generator = torch.Generator().manual_seed(0)
    signs = torch.where(torch.rand(200, 6, generator=generator) < 0.5, -1.0, 1.0).double()
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    vectors = signs @ turn
    axes = binary_axes(vectors)
    torch.testing.assert_close(axes @ axes.T, torch.eye(6, dtype=torch.float64))
    assert sign_cosine(vectors) < 0.9
    assert sign_cosine(vectors @ axes.T) > 0.99


def test_signs_of_the_main_directions_are_nearer_than_those_of_the_first_dimensions():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(300, 8, generator=generator, dtype=torch.float64)
    vectors = vectors * torch.tensor([0.1, 0.1, 0.1, 0.1, 1, 1, 1, 1], dtype=torch.float64)
    axes = binary_axes(vectors, 4)
    assert axes.shape == (4, 8)
    assert float(axes[:, :4].norm()) < 0.1  # the small dimensions are left out
    assert sign_cosine(torch.tensor([[1.0, -1.0]])) == pytest.approx(1)
    assert sign_cosine(torch.tensor([[1.0, 0.0]])) == pytest.approx(0.5**0.5)
