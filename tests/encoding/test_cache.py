"""Vectors that are computed once are whole, however many processes compute them at the same time."""

import multiprocessing
import os

import numpy as np
import pytest

from embedtrain.encoding import cache as module
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_encoder
from embedtrain.types import TokenVectors


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_two_runs_at_once_share_a_cache(kind, sentences, tmp_path, request, monkeypatch):
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 8)
    model = load_encoder(request.getfixturevalue(kind))
    key, texts = model_key(model), sentences[:60]
    begin, children = multiprocessing.Event(), []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                begin.wait()
                embed_once(model, key, texts, "document", tmp_path)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    begin.set()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    found = embed_once(model, key, texts, "document", tmp_path)
    expected = encode_texts(model, texts, "document")
    if isinstance(found, TokenVectors):
        found, expected = found.values, expected.values
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not list(tmp_path.rglob(".*"))
