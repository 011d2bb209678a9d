import numpy as np
import pytest

from embedtrain.encoding.texts import encode_texts, join_blocks
from embedtrain.errors import UserError
from embedtrain.models.build import build_encoder, load_dense
from embedtrain.models.late_interaction.encoder import LateInteractionConfig
from embedtrain.types import TokenVectors


def test_an_empty_document_is_its_special_tokens_and_an_empty_query_is_refused(bert):
    model = load_dense(str(bert))
    vectors = encode_texts(model, ["red cat", ""], "document")
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[1:], encode_texts(model, [" "], "document"), atol=1e-6)
    with pytest.raises(UserError, match="query 2 is empty"):
        encode_texts(model, ["red cat", " "], "query")


def test_blocks_of_token_vectors_are_laid_end_to_end(bert, monkeypatch):
    config = LateInteractionConfig(kind="late_interaction", backbone=str(bert), dim=8)
    model = build_encoder(config, "cpu")
    texts = ["red cat", "", "a small house near the tree", "dog"]
    whole = encode_texts(model, texts, "document")
    monkeypatch.setattr("embedtrain.encoding.texts.TEXTS_AT_ONCE", 2)
    cut = encode_texts(model, texts, "document")
    assert isinstance(whole, TokenVectors)
    assert isinstance(cut, TokenVectors)
    np.testing.assert_allclose(cut.values, whole.values, atol=1e-5)
    assert cut.lengths.tolist() == whole.lengths.tolist()
    assert join_blocks([whole.tensors()]).lengths.tolist() == whole.lengths.tolist()


def test_the_training_mode_is_put_back(bert):
    model = load_dense(str(bert)).train()
    encode_texts(model, ["red"], "query")
    assert model.training
