import pytest
import torch

from embedtrain.data.pretraining.masking import (
    Words,
    corrupt,
    extend_mask,
    mask_words,
    mask_words_by_keys,
    mask_words_independently,
)
from embedtrain.packed import Texts


def words_of(pattern: list[str]) -> Words:
    """Read texts written as S (special), W (begins a word), w (continues it)."""
    flat = "".join(pattern)
    texts = Texts(torch.arange(len(flat)), torch.tensor([len(text) for text in pattern]))
    starts = torch.tensor([letter == "W" for letter in flat])
    return Words.find(texts, starts, torch.tensor([letter == "S" for letter in flat]))


def random_words(num_texts: int = 64, seed: int = 0) -> Words:
    generator = torch.Generator().manual_seed(seed)
    letters = torch.rand(num_texts, 40, generator=generator) < 0.6
    lengths = torch.randint(0, 40, (num_texts,), generator=generator).tolist()
    pattern = [
        "S" + "".join("Ww"[int(not new)] for new in row[:length]) + "S"
        for row, length in zip(letters, lengths, strict=True)
    ]
    return words_of(pattern)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts_of_tokens(words: Words) -> torch.Tensor:
    return torch.where(words.of_token >= 0, words.texts[words.of_token.clamp_min(0)], -1)


def test_words_are_numbered_through_all_texts_and_special_tokens_have_none():
    words = words_of(["SWwWS", "SS", "SwwS"])
    assert words.of_token.tolist() == [-1, 0, 0, 1, -1, -1, -1, -1, 2, 2, -1]
    assert words.texts.tolist() == [0, 0, 2]
    assert words.sizes.tolist() == [2, 1, 2]
    assert words.num_tokens.tolist() == [3, 0, 2]


def test_the_worked_mask():
    """Words of 1, 2 and 1 tokens, budget 2 of 4; the middle one comes second and is let in by its lot.

    Order by key: last word (1 token, in), middle word (2 tokens, half of it fits: in if its lot is below
    1/2), first word.
    """
    words = words_of(["SWWwWS"])
    keys = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64)
    low, high = (torch.full((1, 3), lot, dtype=torch.float64) for lot in (0.49, 0.5))
    in_by_lot = mask_words_by_keys(words, 0.5, keys, low)[:, 0].int().tolist()
    out_by_lot = mask_words_by_keys(words, 0.5, keys, high)[:, 0].int().tolist()
    assert in_by_lot == [0, 0, 1, 1, 1, 0]
    assert out_by_lot == [0, 0, 0, 0, 1, 0]


def test_masks_hide_whole_words_and_no_special_token():
    words = random_words()
    for mask in (
        mask_words(words, 0.3, seeded(), num_draws=8),
        mask_words_independently(words, 0.3, seeded(), num_draws=8),
    ):
        assert not mask[words.of_token < 0].any()
        for draw in mask.unbind(1):
            hidden = torch.bincount(words.of_token[draw], minlength=len(words.sizes))
            assert ((hidden == 0) | (hidden == words.sizes)).all()


def test_every_text_with_a_word_hides_one_and_draws_differ():
    words = random_words()
    mask = mask_words(words, 0.15, seeded(), num_draws=16)
    owner = texts_of_tokens(words)
    for draw in mask.unbind(1):
        assert (torch.bincount(owner[draw], minlength=64) > 0).equal(words.num_tokens > 0)
    assert not mask[:, 0].equal(mask[:, 1])


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.5])
def test_the_expected_share_of_hidden_tokens_is_the_ratio(ratio):
    words = words_of(["S" + "WwWWwwWWWw" * 4 + "S"] * 8)
    total = int(words.num_tokens.sum())
    for draw in (mask_words, mask_words_independently):
        share = draw(words, ratio, seeded(), num_draws=500).sum() / (500 * total)
        assert abs(share - ratio) < 0.01
    budgeted = mask_words(words, ratio, seeded(), num_draws=500).view(8, -1, 500).sum(1)
    assert (budgeted - ratio * 40).abs().max() < 3  # the largest word


def test_masks_equal_a_loop_over_words():
    words = random_words()
    keys, lots = torch.rand(2, 3, len(words.sizes), generator=seeded(), dtype=torch.float64)
    mask = mask_words_by_keys(words, 0.4, keys, lots)
    for draw in range(3):
        expected = torch.zeros(len(words.of_token), dtype=torch.bool)
        for text in range(len(words.num_tokens)):
            own = (words.texts == text).nonzero().squeeze(1).tolist()
            budget, before = 0.4 * int(words.num_tokens[text]), 0
            for word in sorted(own, key=lambda w: keys[draw, w].item()):
                size = int(words.sizes[word])
                if before == 0 or before + lots[draw, word].item() * size < budget:
                    expected[words.of_token == word] = True
                before += size
        assert mask[:, draw].equal(expected)


def test_the_same_seed_draws_the_same_masks():
    words = random_words()
    assert mask_words(words, 0.3, seeded(7)).equal(mask_words(words, 0.3, seeded(7)))
    assert not mask_words(words, 0.3, seeded(7)).equal(mask_words(words, 0.3, seeded(8)))


def test_an_extended_mask_contains_the_first_and_has_the_union_ratio():
    words = words_of(["S" + "WwWWwwWWWw" * 20 + "S"] * 50)
    first = mask_words(words, 0.3, seeded())[:, 0]
    both = extend_mask(words, first, 0.3, 0.5, seeded(1))
    assert (both | first).equal(both)
    assert abs(both.sum() / words.num_tokens.sum() - 0.5) < 0.02


def test_texts_without_words_hide_nothing():
    words = words_of(["SS", "S"])
    assert not mask_words(words, 0.9, seeded()).any()
    assert not mask_words_independently(words, 0.9, seeded()).any()


def test_a_ratio_of_zero_hides_nothing():
    assert not mask_words(random_words(), 0.0, seeded()).any()


def test_corruption_is_80_10_10_and_leaves_the_rest():
    ids = torch.full((30_000,), 7)
    masked = torch.rand(30_000, generator=seeded()) < 0.5
    out = corrupt(ids, masked, 3, torch.arange(10, 1000), seeded(1))
    assert (out[~masked] == 7).all()
    hidden = out[masked]
    shares = [(hidden == 3), (hidden >= 10), (hidden == 7)]
    for share, expected in zip(shares, (0.8, 0.1, 0.1), strict=True):
        assert abs(share.float().mean() - expected) < 0.01
    assert sum(share.sum() for share in shares) == len(hidden)
