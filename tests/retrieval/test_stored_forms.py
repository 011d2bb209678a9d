import numpy as np
import pytest

from embedtrain.retrieval.search import search
from embedtrain.retrieval.stored_forms import FACTORS, sizes_of, stored_forms

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


def test_sizes_are_halves_or_those_asked_for():
    assert sizes_of(384) == [384, 192, 96]
    assert sizes_of(64) == [64]
    assert sizes_of(384, [24, 384, 100]) == [384, 100, 24]
