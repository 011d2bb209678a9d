"""Documents that are searched many times."""

import numpy as np
import pytest
import torch

from embedtrain.models.dense.pair_head import InteractionConfig, InteractionHead
from embedtrain.retrieval.search import for_many_searches, search


def test_only_what_a_product_scores_stays_on_a_gpu(monkeypatch):
    shadow = pytest.importorskip("shadow")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10_000, 10_000))
    documents = np.random.default_rng(0).standard_normal((9, 4), np.float32)
    head = InteractionHead(4, InteractionConfig(hidden=3)).weights
    expected = search(documents[:2], documents, 3)
    with shadow.ShadowCuda():
        kept = for_many_searches(documents, None, "cuda")
        found = search(documents[:2], kept, 3, device="cuda")
        assert for_many_searches(documents, head, "cuda") is documents
        assert for_many_searches(np.tile(documents, (99, 1)), None, "cuda").shape == (891, 4)
    assert isinstance(kept, torch.Tensor)
    assert kept.is_cuda
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert for_many_searches(documents, None, "cpu") is documents
