"""A model becomes scores: what it keeps, and where."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedtrain.encoding.cache import VECTORS, embed_once, model_key
from embedtrain.models.build import load_dense
from embedtrain.retrieval import search as searching
from embedtrain.workflows.evaluate.model import search_and_measure
from embedtrain.workflows.prepare import load_task


@pytest.fixture
def task(beir):
    return load_task(str(beir), "test")


def test_documents_go_to_a_gpu_once_for_all_queries(bert, task, monkeypatch):
    copied, searched, real = [], [], searching.search_exact

    def resident(documents, device):
        copied.append(device)
        return torch.from_numpy(np.array(documents))

    def search_exact(queries, documents, num_results, *, device):
        searched.append(type(documents))
        return real(queries, documents, num_results, device=device)

    monkeypatch.setattr(searching, "resident", resident)
    monkeypatch.setattr(searching, "search_exact", search_exact)
    search_and_measure(load_dense(bert), task, "test", "x")
    assert len(copied) == 1
    assert len(searched) > 5
    assert set(searched) == {torch.Tensor}


def test_what_is_kept_has_the_bits_that_the_cache_would_have_made(bert, task, sentences, tmp_path):
    model = load_dense(bert)
    more = [f"{first} {last}" for first, last in zip(sentences, sentences[::-1], strict=True)]
    ids = [f"x{number}" for number in range(len(more))]
    task = replace(task, documents=task.documents + more, document_ids=task.document_ids + ids)
    search_and_measure(model, task, "test", "x", efficiency=False, cache=tmp_path / "one")
    [kept] = (tmp_path / "one").rglob(VECTORS)
    made = embed_once(model, model_key(model), task.documents, "document", tmp_path / "other")
    assert kept.parent.name in [path.parent.name for path in (tmp_path / "other").rglob(VECTORS)]
    assert np.load(kept).tobytes() == np.array(made).tobytes()
