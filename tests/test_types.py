"""Values that left the host: what shapes depend on stays there, so that nobody waits for the device.

The device of these tests is ``meta``, which has no numbers at all: whoever asks it for one fails.
"""

from dataclasses import replace

import pytest
import torch

from embedtrain.types import Relevance, TokenEmbeddings


@pytest.fixture
def tokens() -> TokenEmbeddings:
    return TokenEmbeddings(
        torch.arange(12.0).view(6, 2),
        torch.tensor([1, 3, 2]),
        ids=torch.arange(6),
        cls=torch.arange(3.0)[:, None],
        gates=torch.arange(6.0),
    )


@pytest.fixture
def relevance() -> Relevance:
    rows = torch.arange(2)
    return Relevance(rows, rows + 10, rows, rows[:, None], torch.full((2, 1), -1))


def test_token_embeddings_keep_their_lengths_on_the_host(tokens):
    there = tokens.to("meta")
    assert there.tokens.device.type == "meta"
    assert there.sizes.tolist() == [1, 3, 2]


def test_texts_chosen_by_rows_of_the_host_ask_the_device_nothing(tokens):
    rows = torch.tensor([2, 0, 2])
    there = tokens.to("meta").select(rows)
    assert there.sizes.tolist() == [2, 1, 2]
    here = tokens.select(rows)
    for name in ("tokens", "lengths", "ids", "cls", "gates"):
        assert getattr(there, name).shape == getattr(here, name).shape
        assert getattr(there, name).device.type == "meta"
    assert here.ids.tolist() == [4, 5, 0, 4, 5]
    assert here.cls[:, 0].tolist() == [2, 0, 2]
    assert here.gates.tolist() == [4, 5, 0, 4, 5]


def test_relevance_remembers_what_it_was_on_the_host(relevance):
    assert relevance.on_host is relevance
    there = relevance.to("meta")
    assert there.owners.device.type == "meta"
    assert there.on_host is relevance
    assert there.to("meta").on_host is relevance


def test_relevance_that_changes_on_a_device_forgets_what_it_was(relevance):
    changed = replace(relevance.to("meta"), owners=torch.zeros(2, dtype=torch.int64, device="meta"))
    with pytest.raises(NotImplementedError, match="meta"):
        assert changed.on_host


def test_lengths_that_change_on_the_host_take_the_place_of_the_old_ones(tokens):
    assert replace(tokens, lengths=torch.full((3,), 2)).sizes.tolist() == [2, 2, 2]
