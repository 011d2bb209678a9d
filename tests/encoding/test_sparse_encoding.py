"""A sparse model's texts become entries, block by block, and are kept and resumed."""

import numpy as np
import pytest
from sparse_toys import TEXTS, weights_of

from embedtrain.encoding import texts as encoding
from embedtrain.encoding.blocks import encode_share, join_shares, small_chunks
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.encoder_pairs import EncoderPairs
from embedtrain.encoding.shards import Shard
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_encoder
from embedtrain.retrieval.index_folder import save_sparse
from embedtrain.seals import seal

MANY = [f"{one} {other}" for one in TEXTS for other in TEXTS] * 15
"""135 texts: two blocks."""


@pytest.fixture(scope="module")
def model(sparse_model):
    return load_encoder(sparse_model)


@pytest.mark.parametrize("side", ["query", "document"])
def test_entries_are_those_of_the_whole_weights_however_few_are_held_at_once(
    monkeypatch, model, side
):
    expected = weights_of(model, TEXTS, side).numpy()
    assert 0 < (expected != 0).mean() < 1
    for held in (1, 2 * model.dim, 2**24):
        monkeypatch.setattr(encoding, "DENSE_NUMBERS", held)
        found = encode_texts(model, TEXTS, side)
        np.testing.assert_allclose(found.dense(), expected, atol=1e-6)
        rows = np.repeat(np.arange(3), found.lengths)
        assert (np.diff(rows * model.dim + found.indices) > 0).all()  # ascending within a text
        assert found.dim == model.dim


def test_vectors_are_kept_once(monkeypatch, tmp_path, model):
    expected = encode_texts(model, MANY, "document").dense()
    key = model_key(model)
    whole = embed_once(model, key, MANY, "document", tmp_path / "one")
    np.testing.assert_allclose(whole.dense(), expected, atol=1e-6)
    assert isinstance(whole.values, np.memmap)
    folder = next((tmp_path / "one" / "embeddings").iterdir())
    assert [path.name for path in folder.iterdir()] == ["joined"]  # blocks are gone
    monkeypatch.setattr(type(model), "embed", None)
    again = embed_once(model, key, MANY, "document", tmp_path / "one")
    np.testing.assert_array_equal(again.values, whole.values)


def test_ranks_encode_their_blocks_and_end_with_the_bytes_of_one(tmp_path, model):
    key = model_key(model)
    whole = embed_once(model, key, MANY, "document", tmp_path / "one")
    folder = next((tmp_path / "one" / "embeddings").iterdir()).name
    second = tmp_path / "two" / "embeddings" / folder / f"{128:012d}"
    save_sparse(encode_texts(model, MANY[128:], "document", execution=small_chunks(model)), second)
    seal(second)
    shared = embed_once(model, key, MANY, "document", tmp_path / "two", shard=Shard(0, 2))
    np.testing.assert_array_equal(shared.dense(), whole.dense())


def test_shares_of_validation_are_joined_in_order_and_few_are_held_at_once(monkeypatch, model):
    whole = encode_texts(model, MANY, "document").dense()
    monkeypatch.setattr(encoding, "DENSE_NUMBERS", 20 * model.dim)
    embed, held = type(model).embed, []

    def counted(self, texts, *rest):
        held.append(len(texts))
        return embed(self, texts, *rest)

    monkeypatch.setattr(type(model), "embed", counted)
    shares = [encode_share(model, MANY, "document", [number]) for number in (0, 1)]
    np.testing.assert_allclose(join_shares(shares, len(MANY)).dense(), whole, atol=1e-6)
    assert max(held) == 20


def test_pairs_are_scored_by_inner_products(sparse_model, model):
    scorer = EncoderPairs(sparse_model)
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[2]), (TEXTS[0], TEXTS[2])]
    queries, documents = (
        dict(zip(TEXTS, weights_of(model, TEXTS, side).numpy(), strict=True))
        for side in ("query", "document")
    )
    expected = [float(queries[one] @ documents[other]) for one, other in pairs]
    np.testing.assert_allclose(scorer.logits(pairs), expected, rtol=1e-5)
