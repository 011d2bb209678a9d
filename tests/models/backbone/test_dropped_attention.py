"""Attention with dropout that keeps no scores, against torch's own functions."""

import pytest
import torch

from embedtrain.models.backbone.dropped_attention import dropped_attention
from embedtrain.models.backbone.packed_attention import split_groups

GROUPS = [(2, 5, 5), (1, 4, 2), (3, 1, 1)]
TOKENS = sum(count * length for count, length, _ in GROUPS)


def rows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(TOKENS, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    ]


def plain(query, key, value, dropout, is_causal):
    """Attend text by text with every score stored; the same masks, drawn at once."""
    sizes = [count * 3 * length * seen for count, length, seen in GROUPS]
    kept = torch.empty(sum(sizes), dtype=torch.bool).bernoulli_(1 - dropout).split(sizes)
    outputs = []
    groups = split_groups(GROUPS, *(x.transpose(0, 1)[None] for x in (query, key, value)))
    for (q, k, v, seen), drawn in zip(groups, kept, strict=True):
        scores = q @ k[:, :, :seen].transpose(-1, -2) * 0.3
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        weights = scores.softmax(-1) * drawn.view(scores.shape) / (1 - dropout)
        outputs.append((weights @ v[:, :, :seen]).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_values_and_gradients_are_those_of_plain_attention(dropout, is_causal):
    gradient = torch.randn(TOKENS, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    found, expected = rows(), rows()
    torch.manual_seed(2)
    ours = dropped_attention(*found, GROUPS, 0.3, dropout, is_causal=is_causal)
    torch.manual_seed(2)
    theirs = plain(*expected, dropout, is_causal)
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
        dropped_attention(query, key, value, GROUPS, 0.3, 0.1, is_causal=False)
    scores = sum(count * 3 * length * seen for count, length, seen in GROUPS)
    assert sum(sizes.values()) == 3 * query.nbytes + scores


def test_a_share_of_the_weights_is_dropped_and_the_mean_stays():
    one = torch.zeros(400, 2, 1)
    result = dropped_attention(one, one, one + 1, [(1, 400, 400)], 1.0, 0.25, is_causal=False)
    assert 0.97 < result.mean() < 1.03
    assert result.std() > 0.01
