import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.ops.maxsim import token_maximum as module
from embedtrain.ops.maxsim.token_maximum import (
    cut_texts,
    segment_sums,
    sum_weighted_rows,
    token_maximum,
)


@settings(deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 30), max_size=12),
    num_rows=st.integers(0, 9),
    elements=st.integers(1, 400),
)
def test_tiles_hold_every_text_once_and_keep_to_the_budget(lengths, num_rows, elements):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    starts = lengths.cumsum(0) - lengths
    tiles = list(cut_texts(lengths, num_rows, elements))
    seen = [text for tile in tiles for text in tile.texts.tolist()]
    assert sorted(seen) == list(range(len(lengths)))
    for tile in tiles:
        assert len(tile.texts) == 1 or num_rows * tile.tokens.numel() <= elements
        for text, length, tokens in zip(tile.texts, tile.lengths, tile.tokens, strict=True):
            real = torch.arange(int(starts[text]), int(starts[text] + length))
            assert tokens[:length].equal(real)
            assert (tokens[length:] == starts[text]).all()


def test_a_winner_in_a_repeated_column_is_the_first_token():
    (tile,) = cut_texts(torch.tensor([4, 2]), 1, 100)
    positions = torch.tensor([[3, 3], [0, 1], [2, 2]])
    assert tile.winners(positions).tolist() == [[3, 0], [0, 1], [2, 0]]


def test_weighted_rows_are_added_at_their_targets():
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    source, target = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2])
    summed = sum_weighted_rows(table, source, target, torch.tensor([1.0, 0.5, -1.0]), 4)
    assert summed.tolist() == [[1.5, 2.0], [0.0, 0.0], [-2.0, -2.0], [0.0, 0.0]]


@pytest.mark.parametrize("lengths", [[2, 2, 2], [0, 5, 1], [3, 3, 0], [0, 0], []])
def test_segments_are_added_and_empty_ones_give_zero(lengths):
    values = torch.arange(3.0 * sum(lengths)).view(sum(lengths), 3).requires_grad_()
    expected = [part.sum(0) for part in values.split(lengths)] if lengths else []
    sums = segment_sums(values, torch.tensor(lengths, dtype=torch.int64))
    assert sums.shape == (len(lengths), 3)
    assert sums.tolist() == [row.tolist() for row in expected]
    if sum(lengths):
        (gradient,) = torch.autograd.grad(sums.sum(), values)
        assert gradient.eq(1).all()


@pytest.mark.parametrize("elements", [1, 20, 200, 10_000])
def test_the_threshold_is_the_same_for_every_tile_size(elements, monkeypatch):
    monkeypatch.setattr(module, "CPU_TILE", elements)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-3, 4, (7, 3), generator=generator).float()
    tokens = torch.randint(-3, 4, (20, 3), generator=generator).float()
    lengths = torch.tensor([5, 1, 8, 6])
    for top_k in (1, 6, 20):
        _, threshold = token_maximum(rows, tokens, lengths, top_k)
        assert threshold.equal((rows @ tokens.T).sort(descending=True).values[:, top_k - 1])
    assert token_maximum(rows, tokens, lengths, 21)[1].eq(-torch.inf).all()
    assert token_maximum(rows, tokens, lengths)[1].eq(-torch.inf).all()
