"""Attention with dropout that keeps no scores, against torch's own functions."""

import pytest
import torch

from embedtrain.models.backbone.attention.dropped import dropped_attention
from embedtrain.models.backbone.attention.grouped import split_groups
from embedtrain.models.backbone.attention.rules import Rules, band

GROUPS = [(2, 5, 5), (1, 4, 2), (1, 6, 2), (3, 1, 1)]
TOKENS = sum(count * length for count, length, _ in GROUPS)


def rows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(TOKENS, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    ]


def plain(query, key, value, rules):
    """Attend text by text with every score stored; the same masks, drawn at once."""
    sizes = [count * 3 * length * seen for count, length, seen in GROUPS]
    kept = torch.empty(sum(sizes), dtype=torch.bool).bernoulli_(1 - rules.dropout).split(sizes)
    outputs = []
    groups = split_groups(GROUPS, query, key, value)
    for (q, k, v, attended), drawn in zip(groups, kept, strict=True):
        scores = q @ k[:, :, :attended].transpose(-1, -2) * 0.3
        seen = band(*(torch.arange(size) for size in scores.shape[-2:]), rules.reach)
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1).nan_to_num(0.0)  # who sees nothing gets nothing
        weights = weights * drawn.view(scores.shape) / (1 - rules.dropout)
        outputs.append((weights @ v[:, :, :attended]).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (2, 0), (2, 2), (1, 1)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_values_and_gradients_are_those_of_plain_attention(dropout, window):
    rules = Rules(0.3, window, dropout=dropout)
    gradient = torch.randn(TOKENS, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    found, expected = rows(), rows()
    torch.manual_seed(2)
    ours = dropped_attention(*found, GROUPS, rules)
    torch.manual_seed(2)
    theirs = plain(*expected, rules)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours.backward(gradient)
    theirs.backward(gradient)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_what_is_kept_grows_by_a_byte_for_each_score():
    sizes = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    query, key, value = rows()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        dropped_attention(query, key, value, GROUPS, Rules(0.3, dropout=0.1))
    scores = sum(count * 3 * length * seen for count, length, seen in GROUPS)
    assert sum(sizes.values()) == 3 * query.nbytes + scores


def test_a_share_of_the_weights_is_dropped_and_the_mean_stays():
    one = torch.zeros(400, 2, 1)
    result = dropped_attention(one, one, one + 1, [(1, 400, 400)], Rules(1.0, dropout=0.25))
    assert 0.97 < result.mean() < 1.03
    assert result.std() > 0.01
