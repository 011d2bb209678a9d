"""SelfExtend against its definition, pair by pair."""

from itertools import pairwise

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.models.backbone.attention.layout import lay_out
from embedtrain.models.backbone.self_extend import extension, self_extend_attention
from embedtrain.models.build import load_encoder


def distance(first, second, wish):
    """The position of one token relative to another, as the paper defines it."""
    apart = abs(first - second)
    near, group = wish.near, wish.group
    if apart >= near:
        early, late = sorted((first, second))
        apart = late // group - early // group + near - near // group
    return apart if first >= second else -apart


def wish_of(window, near, length):
    return LongInputs.model_construct(
        method="self_extend", length=length, window=window, keep_short=True, neighbours=near
    )


def naive(backbone, query, key, value, wish, *, is_causal):
    """Scores of all pairs, each with its own rotation."""
    length, heads = query.shape[2], query.shape[1]
    scores = torch.zeros(heads, length, length, dtype=torch.float64)
    for i in range(length):
        for j in range(length):
            place = torch.tensor([[distance(i, j, wish)]])
            cosine, sine = backbone.rotary_emb(query, place)
            turned, _ = apply_rotary_pos_emb(query[:, :, i : i + 1], query[:, :, :1], cosine, sine)
            for head in range(heads):
                other = key[0, head // (heads // key.shape[1]), j]
                scores[head, i, j] = (turned[0, head, 0] * other).sum() / query.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    values = value[0].double().repeat_interleave(heads // key.shape[1], dim=0)
    return (scores.softmax(-1) @ values).transpose(0, 1)


def states(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(1, heads, length, 8, generator=generator) for heads in (4, 2, 2))


def attend(backbone, wish, length, *, is_causal):
    query, key, value = states(length)
    cosine, sine = backbone.rotary_emb(query, torch.arange(length)[None])
    turned = apply_rotary_pos_emb(query, key, cosine, sine)
    found, _ = self_extend_attention(
        backbone.layers[0].self_attn, *turned, value, None,
        layout=lay_out([length], torch.device("cpu")),
        extension=extension(backbone, wish, "here"), is_causal=is_causal,
    )  # fmt: skip
    return found[0], naive(backbone, query, key, value, wish, is_causal=is_causal)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("window", "near", "length"), [(10, 3, 29), (10, 1, 20), (30, 8, 40)])
def test_it_is_its_definition(llama, window, near, length, is_causal):
    backbone = load_encoder(llama).backbone
    found, expected = attend(backbone, wish_of(window, near, 60), length, is_causal=is_causal)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("is_causal", [True, False])
def test_groups_of_one_are_plain_rotary_attention(llama, is_causal):
    backbone, wish = load_encoder(llama).backbone, wish_of(16, 8, 16)
    assert wish.group == 1
    length = 24
    found, _ = attend(backbone, wish, length, is_causal=is_causal)
    query, key, value = states(length)
    cosine, sine = backbone.rotary_emb(query, torch.arange(length)[None])
    query, key = apply_rotary_pos_emb(query, key, cosine, sine)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=is_causal, enable_gqa=True
    )
    torch.testing.assert_close(found, expected[0].transpose(0, 1), rtol=0, atol=2e-6)


def test_rows_are_attended_in_parts_that_do_not_show(llama, monkeypatch):
    backbone, wish = load_encoder(llama).backbone, wish_of(10, 3, 40)
    whole, _ = attend(backbone, wish, 33, is_causal=False)
    monkeypatch.setattr("embedtrain.models.backbone.self_extend.ROWS_AT_ONCE", 7)
    parts, _ = attend(backbone, wish, 33, is_causal=False)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("window", "near", "length"), [(512, 64, 4096), (64, 8, 256), (20, 1, 39)])
def test_distances_grow_and_stay_within_the_window(window, near, length):
    wish = wish_of(window, near, length)
    apart = [distance(length - 1, other, wish) for other in range(length - 1, -1, -1)]
    assert all(late >= early for early, late in pairwise(apart))
    assert apart[:near] == list(range(near))
    assert apart[-1] <= window
    if (window, near) == (512, 64):
        assert wish.group == 9  # LongEmbed's setting
