"""Diagnostics on embeddings whose figures are known by hand."""

import math

import pytest
import torch

from embedtrain.evaluation.measures.diagnostics import (
    alignment,
    effective_rank,
    isotropy_score,
    mean_cosine,
    mean_norm,
    partition_ratio,
    uniformity,
)


def random_rotation(dim):
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q


@pytest.mark.parametrize("num_directions", [1, 2, 7, 16])
@pytest.mark.parametrize("length", [1.0, 30.0])
def test_orthogonal_directions_are_counted_whatever_their_length_and_rotation(
    num_directions, length
):
    directions = random_rotation(16)[:num_directions] * length
    assert effective_rank(directions.repeat(5, 1).float()).item() == pytest.approx(
        num_directions, abs=1e-4
    )


def test_an_uneven_second_direction_counts_in_part():
    embeddings = torch.diag(torch.tensor([3.0, 1.0]))
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(embeddings).item() == pytest.approx(expected)


def test_collapsed_embeddings_have_rank_one_and_no_isotropy():
    embeddings = torch.tensor([[1.0, 2.0, 3.0]]).expand(10, 3)
    assert effective_rank(embeddings).item() == pytest.approx(1.0, abs=1e-6)
    assert mean_cosine(embeddings).item() == pytest.approx(1.0)
    assert uniformity(embeddings).item() == pytest.approx(0.0, abs=1e-9)
    assert isotropy_score(embeddings).item() == 0.0
    assert effective_rank(torch.zeros(4, 3)).item() == 1.0


def test_the_norm_is_averaged():
    assert mean_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).item() == 3.0


def test_alignment_is_the_squared_distance_on_the_sphere():
    queries = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    positives = torch.tensor([[7.0, 0.0], [1.0, 0.0]])
    assert alignment(queries, positives).item() == pytest.approx((0.0 + 2.0) / 2)


def test_uniformity_averages_over_pairs():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(embeddings).item() == pytest.approx(expected)


def test_mean_cosine_is_the_mean_over_distinct_pairs():
    embeddings = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    units = torch.nn.functional.normalize(embeddings.double(), dim=1)
    cosines = (units @ units.T)[~torch.eye(20, dtype=torch.bool)]
    assert mean_cosine(embeddings).item() == pytest.approx(cosines.mean().item())


@pytest.mark.parametrize("num_axes", [1, 2, 4, 8, 16])
def test_isotropy_is_the_share_of_the_axes_that_carry_variance(num_axes):
    axes = random_rotation(16)[:num_axes]
    embeddings = torch.cat([axes, -axes]) + 5.0
    expected = (num_axes - 1) / 15
    assert isotropy_score(embeddings).item() == pytest.approx(expected, abs=1e-9)


def test_fewer_texts_than_dimensions_leave_axes_without_variance():
    axes = random_rotation(16)[:2]
    assert isotropy_score(torch.cat([axes, -axes])).item() == pytest.approx(1 / 15)


@pytest.mark.parametrize(
    "diagnostic",
    [mean_norm, effective_rank, uniformity, mean_cosine, isotropy_score, partition_ratio],
)
def test_nan_gives_nan_and_no_gradient_is_kept(diagnostic):
    embeddings = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert not diagnostic(embeddings.bfloat16()).requires_grad
    broken = embeddings.detach().clone()
    broken[2, 1] = math.nan
    assert diagnostic(broken).isnan()


def test_the_partition_ratio_of_two_opposite_vectors_by_hand():
    embeddings = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])  # lengths play no part
    assert partition_ratio(embeddings).item() == pytest.approx(2 / (math.e + 1 / math.e))


def test_the_partition_ratio_sees_a_cone_that_isoscore_does_not():
    even = torch.nn.functional.normalize(torch.randn(20_000, 16, dtype=torch.float64), dim=1)
    cone = even + 2 * torch.eye(16, dtype=torch.float64)[0]
    assert partition_ratio(even) > 0.95
    assert partition_ratio(cone) < 0.3
    assert isotropy_score(torch.nn.functional.normalize(cone, dim=1)) > 0.8
