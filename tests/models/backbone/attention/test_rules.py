"""What a layer of transformers means by its window."""

import torch

from embedtrain.models.backbone.attention.rules import Rules, band, layer_window


def test_a_causal_window_counts_the_querys_own_key():
    assert layer_window(4, causal=True, told=False, mask_window=4) == (3, 0)


def test_a_window_of_both_sides_is_one_less_unless_the_config_turned_a_decoder_round():
    assert layer_window(65, causal=False, told=False, mask_window=64) == (64, 64)  # ModernBERT
    assert layer_window(257, causal=False, told=False, mask_window=257) == (256, 256)  # Gemma3
    assert layer_window(4, causal=False, told=True, mask_window=4) == (4, 4)  # Mistral, told to


def test_no_window_is_none():
    assert layer_window(None, causal=True, told=False, mask_window=4) == (-1, -1)


def test_both_ends_of_a_window_are_inside():
    seen = band(torch.arange(5), torch.arange(5), (1, 2))
    assert seen[2].tolist() == [False, True, True, True, True]
    assert band(torch.arange(5), torch.arange(5), Rules(1.0, (1, 2), causal=True).reach)[2].tolist() == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_what_limits_no_text_is_no_limit():
    assert Rules(1.0, (9, 9)).within(10, 10) == (-1, -1)
    assert Rules(1.0, (8, 9)).within(10, 10) == (8, -1)
    assert Rules(1.0, (-1, -1), causal=True).within(10, 1) == (-1, -1)
