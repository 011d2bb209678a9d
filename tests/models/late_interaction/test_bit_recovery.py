"""What a map of bits misses of the vectors is the naive sum, teaches signs alone, and is no part of an export."""

import pytest
import torch
from late_toys import TEXTS, WHOLE, embed, encoder, per_text
from pydantic import ValidationError

from embedtrain.models.build import load_encoder, save_encoder
from embedtrain.models.late_interaction.bit_recovery import BitRecovery
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.ops.straight_through import straight_through_sign
from embedtrain.types import Relevance, RetrievalBatch, TokenEmbeddings

OWNERS = [0, 0, 1, -1]
DOCUMENTS = [1, 3, 1, 0]
"""Rows of TEXTS that two queries brought, one of them twice, and one that none did."""


def batch(model):
    queries = model.tokenization.encode(TEXTS[:2], "query")
    documents = model.tokenization.encode(TEXTS, "document")
    rows, ids = torch.arange(2), torch.tensor(DOCUMENTS)
    positives, known = torch.tensor([[0], [2]]), torch.tensor([[1], [1]])
    relevance = Relevance(rows, ids, torch.tensor(OWNERS), positives, known)
    return RetrievalBatch(queries, documents, rows, ids, relevance)


def test_it_is_the_naive_sum(bert):
    model = encoder(bert, binary=True, recovery=True).double()
    floats = encoder(bert).double()
    torch.nn.init.normal_(model.recovery.weight, generator=torch.Generator().manual_seed(1))
    outputs, turn = model(batch(model), WHOLE), model.recovery.weight.detach()
    per_document = []
    for vectors in per_text(embed(floats, TEXTS)):
        missed = [
            float((turn @ (one.sign() / 8**0.5) - one).square().sum()) for one in vectors.detach()
        ]
        per_document.append(sum(missed) / len(missed))
    expected = ((per_document[1] + per_document[3]) / 2 + per_document[1]) / 2
    assert outputs.recovery.item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(
        outputs.document.tokens, embed(model, [TEXTS[i] for i in DOCUMENTS]).tokens
    )


def test_by_hand_and_the_vectors_are_no_pupils_of_the_map():
    vectors = torch.tensor([[0.6, -0.8]], requires_grad=True)
    bits = straight_through_sign(vectors)
    bits.retain_grad()
    recovery = BitRecovery(2)
    with torch.no_grad():
        recovery.weight.copy_(2**0.5 * torch.eye(2))  # gives (1, -1) back
    documents = TokenEmbeddings(torch.cat([bits, vectors], 1), torch.tensor([1]))
    left, missed = recovery(documents)
    assert missed.item() == pytest.approx(0.4**2 + 0.2**2)
    torch.testing.assert_close(left.tokens, bits)
    missed.sum().backward()
    torch.testing.assert_close(bits.grad, 2**0.5 * 2 * torch.tensor([[0.4, -0.2]]))
    slope = 3 * (1 - torch.tanh(3 * 2**0.5 * vectors.detach()).square())
    torch.testing.assert_close(vectors.grad, bits.grad * slope)


def test_an_export_leaves_it_out(bert, tmp_path):
    model = encoder(bert, binary=True, recovery=True)
    save_encoder(model, tmp_path / "bits")
    again = load_encoder(str(tmp_path / "bits"))
    assert again.recovery is None
    torch.testing.assert_close(embed(again, TEXTS).tokens, embed(model, TEXTS).tokens)


def test_floats_and_several_heads_have_nothing_to_recover(bert):
    for more in ({}, {"binary": True, "head_dims": (8, 4)}):
        with pytest.raises(ValidationError, match="recovery is of binary: true, without head_dims"):
            LateInteractionConfig(kind="late_interaction", backbone=bert, recovery=True, **more)
