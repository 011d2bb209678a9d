"""Packed batches that are filled up to few sizes."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.models.backbone.few_shapes import fill_up, rounded
from embedtrain.models.build import build_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.packed import Texts


@given(st.integers(1, 100_000))
def test_at_most_a_thirty_second_is_added(tokens):
    assert tokens <= rounded(tokens) < tokens * (1 + 1 / 32) + 1
    assert rounded(rounded(tokens)) == rounded(tokens)


def test_chunks_that_are_nearly_full_have_three_sizes():
    assert len({rounded(tokens) for tokens in range(8192 - 160, 8193)}) == 3
    assert len({rounded(tokens) for tokens in range(1024, 2049)}) == 33


def test_nothing_but_single_tokens_is_added():
    texts, attended = fill_up(
        Texts(torch.arange(70), torch.tensor([40, 30])), torch.tensor([40, 7]), 5
    )
    assert texts.ids.tolist() == [*range(70)]
    texts, attended = fill_up(
        Texts(torch.arange(131), torch.tensor([100, 31])), torch.tensor([100, 7]), 5
    )
    assert texts.ids.tolist() == [*range(131), 5]
    assert texts.lengths.tolist() == [100, 31, 1]
    assert attended.tolist() == [100, 7, 1]


def test_vectors_and_gradients_do_not_notice(bert, monkeypatch):
    lengths = torch.tensor([60] * 17 + [13])
    ids = torch.randint(5, 200, (int(lengths.sum()),), generator=torch.Generator().manual_seed(0))
    assert rounded(len(ids)) > len(ids)
    found = []
    for size in (64, 1):
        monkeypatch.setattr("embedtrain.models.backbone.few_shapes.LARGEST", size)
        model = build_dense(DenseConfig(backbone=bert, packing="packed")).double()
        vectors = model.embed(Texts(ids, lengths), Execution(10_000))
        vectors.square().mul(torch.arange(32)).sum().backward()
        weights = [one.grad for one in model.parameters() if one.grad is not None]
        found.append([vectors.detach(), *weights])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
