from dataclasses import replace

import numpy as np
import pytest

from embedtrain.retrieval.search import search
from embedtrain.retrieval.stored_forms import FACTORS, sizes_of, stored_forms
from embedtrain.types import TokenVectors

RESULTS = 8
"""Ten times as many are all 80 documents."""


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    documents, queries = (rng.normal(size=(n, 32)).astype(np.float32) for n in (80, 7))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    forms = dict(stored_forms(documents))
    truth = search(queries, documents, RESULTS).indices
    overlap = {
        name: np.mean(
            [
                len(set(a) & set(b))
                for a, b in zip(index.search(queries, RESULTS).indices, truth, strict=True)
            ]
        )
        for name, index in forms.items()
    }
    return {name: index.num_bytes / 80 for name, index in forms.items()}, overlap


def test_bytes_of_a_document(found):
    sizes, _ = found
    assert (sizes["float32"], sizes["float16"], sizes["int8"]) == (128, 64, 32)
    assert sizes["int8, ranges"] == 32 + 2 * 4 * 32 / 80
    assert (sizes["ternary"], sizes["bits"], sizes["bits, 4 times by Hamming"]) == (8, 4, 4)
    assert sizes["bits, 4 times by Hamming, int8 copy"] == 36


def test_more_bytes_and_more_candidates_keep_more(found):
    _, overlap = found
    assert overlap["float32"] == RESULTS
    assert overlap["int8"] > 0.9 * RESULTS > overlap["bits"]
    names = ["bits, by Hamming"] + [
        f"bits, {factor} times by Hamming, int8 copy" for factor in FACTORS
    ]
    kept = [overlap[name] for name in names]
    assert kept == sorted(set(kept))
    # Candidates that are all documents leave the ranking to what scores them.
    assert overlap["bits, 10 times by Hamming, int8 copy"] == overlap["int8"]
    assert overlap["bits, 10 times by Hamming"] == overlap["bits"]
    assert overlap["ternary"] > overlap["bits, by Hamming"]


def test_a_graph_costs_its_links_and_clusters_their_places(found):
    sizes, overlap = found
    links = 32 * 2 * 4  # the ground floor has twice as many
    assert sizes["float32 in a graph (HNSW)"] > sizes["float32"] + links
    assert sizes["int8 in a graph (HNSW)"] == pytest.approx(
        sizes["float32 in a graph (HNSW)"] - 96, abs=6
    )
    assert sizes["float32"] < sizes["float32 in clusters (IVF)"] < 200
    for name in ("float32 in a graph (HNSW)", "float32 in clusters (IVF)"):
        assert overlap[name] == RESULTS


def test_tokens_are_pooled_and_stored_in_few_bits():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 16)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    documents = TokenVectors(values, np.full(6, 10))
    sizes = {name: index.num_bytes for name, index in stored_forms(documents)}
    assert len(sizes) == 12
    assert (sizes["float32"], sizes["ternary"], sizes["bits"]) == (60 * 64, 60 * 4, 60 * 2)
    assert sizes["bits, pooled by 4"] == 6 * 3 * 2  # the first of a text and two of nine
    alone = replace(documents, ids=np.arange(60), exact_match=True)
    assert len(dict(stored_forms(alone))) == 4


def test_sizes_are_halves_or_those_asked_for():
    assert sizes_of(384) == [384, 192, 96]
    assert sizes_of(64) == [64]
    assert sizes_of(384, [24, 384, 100]) == [384, 100, 24]
