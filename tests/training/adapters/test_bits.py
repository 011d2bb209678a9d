"""A rotation that learns to rank by signs."""

import pytest
import torch
import torch.nn.functional as F

from embedtrain.models.edits.rotate import binary_axes
from embedtrain.training.adapters.bits import learn_axes, ranking_loss


@pytest.fixture(scope="module")
def texts():
    """Clusters of unlike spread, as texts of a few topics."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 16, generator=generator)
    spread = torch.linspace(0.2, 1.5, 16)
    points = centres.repeat(20, 1) + spread * torch.randn(800, 16, generator=generator)
    return F.normalize(points + 0.5, dim=1)


@pytest.mark.parametrize(("dim", "left"), [(16, 0.97), (8, 1.0)])
def test_bits_of_other_texts_rank_more_as_floats_do(texts, dim, left):
    begun = binary_axes(texts[:600], dim, 10)
    learned = learn_axes(texts[:600], begun, 80)
    torch.testing.assert_close(learned @ learned.T, torch.eye(dim, dtype=torch.float64))
    before, after = (float(ranking_loss(texts[600:], axes.float())) for axes in (begun, learned))
    assert after < left * before


def test_no_step_changes_nothing(texts):
    begun = binary_axes(texts, 8, 3)
    assert learn_axes(texts, begun, 0) is begun


def test_bits_that_rank_as_floats_do_cost_only_their_scale():
    """Corners of a square: its signs are its vectors but for the length by which codes are scaled."""
    corners = F.normalize(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), dim=1)
    turned = corners @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert float(ranking_loss(corners, torch.eye(2))) < 0.01
    assert float(ranking_loss(turned, torch.eye(2))) > 0.1
