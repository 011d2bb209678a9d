"""Fixed dimensional encodings against loops over buckets and against exact search."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import (
    maxsim_in_loops,
    noisy_queries,
    texts_of,
    topical_tokens,
    unit_tokens,
    whole_tokens,
)

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction import fixed_dimensional
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.retrieval.late_interaction.fixed_dimensional import (
    Encoder,
    FixedDimensionalIndex,
    FixedDimensionalSearch,
)
from embedtrain.retrieval.late_interaction.rerank import recall_against_exact
from embedtrain.types import TokenVectors


def encode_in_loops(encoder, text, side):
    """The definition, bucket by bucket, in float64."""
    blocks = []
    for repetition, planes in enumerate(encoder.planes.astype(np.float64)):
        bits = (text.astype(np.float64) @ planes.T > 0).astype(int)
        codes = bits @ (1 << np.arange(encoder.settings.bits))
        short = text.astype(np.float64)
        if encoder.signs is not None:
            signs = encoder.signs[repetition].astype(np.float64)
            short = short @ signs.T / np.sqrt(len(signs))
        for bucket in range(2**encoder.settings.bits):
            here = short[codes == bucket]
            if side == "query":
                blocks.append(here.sum(axis=0))
            elif len(here):
                blocks.append(here.mean(axis=0))
            elif encoder.settings.fill_empty and len(short):
                blocks.append(short[np.argmin([int(c ^ bucket).bit_count() for c in codes])])
            else:
                blocks.append(np.zeros(short.shape[1]))
    return np.concatenate(blocks)


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("inner_dim", [None, 3])
@pytest.mark.parametrize("fill_empty", [True, False])
def test_an_encoding_is_that_of_the_definition(side, inner_dim, fill_empty, monkeypatch):
    monkeypatch.setattr(fixed_dimensional, "FILLED_KEYS", 200)
    texts = whole_tokens(7, 6, 0, shortest=0)
    encoder = Encoder.draw(
        FixedDimensionalSearch(
            repetitions=3, bits=3, inner_dim=inner_dim, fill_empty=fill_empty, seed=5
        ),
        6,
    )
    expected = [encode_in_loops(encoder, text, side) for text in texts_of(texts)]
    np.testing.assert_allclose(encoder.encode(texts, side), expected, atol=1e-5)
    assert encoder.dim == len(expected[0])


def test_without_planes_it_is_the_sum_of_the_query_times_the_mean_of_the_document():
    queries, documents = whole_tokens(4, 5, 0), whole_tokens(6, 5, 1)
    encoder = Encoder.draw(FixedDimensionalSearch(repetitions=1, bits=0, inner_dim=5), 5)
    scores = encoder.encode(queries, "query") @ encoder.encode(documents, "document").T
    sums = np.array([text.sum(axis=0) for text in texts_of(queries)])
    means = np.array([text.mean(axis=0) for text in texts_of(documents)])
    np.testing.assert_allclose(scores, sums @ means.T, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(0, 6), repetitions=st.integers(1, 4), seed=st.integers(0, 1000))
def test_without_inner_projection_it_is_never_above_maxsim(bits, repetitions, seed):
    queries, documents = whole_tokens(4, 5, seed), whole_tokens(6, 5, seed + 1)
    encoder = Encoder.draw(
        FixedDimensionalSearch(repetitions=repetitions, bits=bits, inner_dim=None, seed=seed), 5
    )
    scores = encoder.encode(queries, "query") @ encoder.encode(documents, "document").T
    assert (scores / repetitions <= maxsim_in_loops(queries, documents) + 1e-4).all()


def test_each_token_alone_in_its_bucket_gives_maxsim_itself():
    tokens = TokenVectors(np.eye(3, dtype=np.float32), np.array([3]))
    encoder = Encoder.draw(FixedDimensionalSearch(repetitions=2, bits=8, inner_dim=None), 3)
    scores = encoder.encode(tokens, "query") @ encoder.encode(tokens, "document").T / 2
    np.testing.assert_allclose(scores, [[3.0]])


@pytest.fixture(scope="module")
def topical():
    documents = topical_tokens(400, 64, 0)
    queries, _ = noisy_queries(documents, 60, 16, noise=0.15, seed=1)
    return queries, documents, maxsim_in_loops(queries, documents)


def measure(topical, **settings):
    """Share of queries whose best document is first, and among ten; encoded part of its MaxSim."""
    queries, documents, truth = topical
    encoder = Encoder.draw(FixedDimensionalSearch(**settings), 64)
    scores = encoder.encode(queries, "query") @ encoder.encode(documents, "document").T
    best, rows = truth.argmax(axis=1), np.arange(len(truth))
    rank = (scores > scores[rows, best, None]).sum(axis=1)
    ratio = scores[rows, best] / settings["repetitions"] / truth[rows, best]
    return (rank < 1).mean(), (rank < 10).mean(), ratio.mean()


@pytest.mark.parametrize(
    ("repetitions", "bits", "inner_dim", "first", "among_ten"),
    [(5, 3, 8, 0.85, 0.98), (20, 3, 8, 0.97, 1.0), (20, 5, 16, 0.98, 1.0)],
)
def test_encodings_rank_as_well_as_the_method_notes_measured(
    topical, repetitions, bits, inner_dim, first, among_ten
):
    size = {"repetitions": repetitions, "bits": bits, "inner_dim": inner_dim}
    found_first, found_among_ten, ratio = measure(topical, **size)
    assert found_first >= first
    assert found_among_ten >= among_ten
    assert 0.40 <= ratio <= 0.57


def test_filling_empty_buckets_brings_the_score_nearer_to_maxsim(topical):
    filled, empty = (
        measure(topical, repetitions=20, bits=5, inner_dim=16, fill_empty=fill_empty)[2]
        for fill_empty in (True, False)
    )
    assert filled > empty + 0.03


def test_a_final_projection_keeps_inner_products_on_average():
    queries, documents = unit_tokens(5, 8, 0), unit_tokens(5, 8, 1)

    def scores(seed, final_dim):
        settings = FixedDimensionalSearch(repetitions=4, bits=2, inner_dim=None, seed=seed)
        long = Encoder.draw(settings, 8)
        encoder = Encoder.draw(settings.model_copy(update={"final_dim": final_dim}), 8)
        np.testing.assert_array_equal(encoder.planes, long.planes)
        assert encoder.encode(queries, "query").shape == (5, encoder.dim)
        return encoder.encode(queries, "query") @ encoder.encode(documents, "document").T

    errors = np.mean([scores(seed, 64) - scores(seed, None) for seed in range(100)], axis=0)
    spread = np.std([scores(seed, 64) - scores(seed, None) for seed in range(20)])
    assert abs(errors).max() < 4 * spread / np.sqrt(100)


def test_all_documents_as_candidates_give_the_exact_result():
    queries, documents = whole_tokens(6, 8, 0), whole_tokens(40, 8, 1, shortest=0)
    index = FixedDimensionalSearch(repetitions=2, num_candidates=40).build(documents)
    exact = ExactIndex(documents).search(queries, 10)
    found = index.search(queries, 10)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_more_candidates_find_more(topical):
    queries, documents, _ = topical
    exact = ExactIndex(documents)
    index = FixedDimensionalSearch(repetitions=4, bits=3, inner_dim=8).build(documents)
    recalls = [
        recall_against_exact(replace(index, num_candidates=candidates), exact, queries, 10)
        for candidates in (10, 40, 400)
    ]
    assert recalls[0] < recalls[1] < recalls[2] == 1.0


def test_cls_vectors_weigh_as_much_as_in_the_exact_score():
    random = np.random.default_rng(0)
    queries, documents = (
        replace(whole_tokens(4, 5, seed), cls=random.normal(size=(4, 3))) for seed in (0, 1)
    )
    encoder = Encoder.draw(FixedDimensionalSearch(repetitions=3, bits=2, inner_dim=None), 5)
    scores = encoder.with_cls(queries, "query") @ encoder.with_cls(documents, "document").T
    tokens = encoder.encode(queries, "query") @ encoder.encode(documents, "document").T / 3
    np.testing.assert_allclose(scores, tokens + queries.cls @ documents.cls.T, atol=1e-4)


def test_cls_vectors_choose_candidates_too():
    random = np.random.default_rng(0)
    documents = TokenVectors(
        np.ones((30, 4), np.float32), np.ones(30, np.int64), cls=random.normal(size=(30, 3))
    )
    index = FixedDimensionalSearch(repetitions=2, bits=1, num_candidates=1).build(documents)
    queries = TokenVectors(
        np.ones((1, 4), np.float32), np.array([1]), cls=random.normal(size=(1, 3))
    )
    best = int((documents.cls @ queries.cls[0]).argmax())
    assert index.search(queries, 1).indices.tolist() == [[best]]


def test_a_saved_index_finds_the_same(tmp_path, topical):
    queries, documents, _ = topical
    index = FixedDimensionalSearch(repetitions=4, final_dim=96, factory="SQ8").build(documents)
    index.save(tmp_path / "index")
    loaded = FixedDimensionalIndex.load(tmp_path / "index")
    assert isinstance(loaded.documents.values, np.memmap)
    assert loaded.num_bytes == index.num_bytes > documents.nbytes + 400 * 96
    expected, found = index.search(queries, 5), loaded.search(queries, 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_other_settings_or_draws_than_those_of_the_index_are_refused(tmp_path):
    index = FixedDimensionalSearch(repetitions=2).build(whole_tokens(9, 4, 0))
    index.save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "index.json").read_text())
    manifest["settings"]["seed"] = 1
    (tmp_path / "index" / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="other settings or random draws"):
        FixedDimensionalIndex.load(tmp_path / "index")
    index.save(tmp_path / "index")
    planes = np.load(tmp_path / "index" / "planes.npy")
    np.save(tmp_path / "index" / "planes.npy", planes[::-1])
    with pytest.raises(UserError, match="other settings or random draws"):
        FixedDimensionalIndex.load(tmp_path / "index")


def test_the_same_seed_draws_the_same():
    first, again, other = (
        Encoder.draw(FixedDimensionalSearch(seed=seed), 32).digest for seed in (0, 0, 1)
    )
    assert first == again != other


def test_exact_match_is_refused():
    documents = TokenVectors(
        np.ones((1, 4), np.float32), np.array([1]), np.array([7]), exact_match=True
    )
    with pytest.raises(UserError, match="fde cannot follow exact_match"):
        FixedDimensionalSearch().build(documents)


def test_encoding_does_not_depend_on_the_number_of_texts_at_once():
    texts = unit_tokens(20, 16, 0)
    encoder = Encoder.draw(FixedDimensionalSearch(repetitions=3), 16)
    together = encoder.encode(texts, "document")
    alone = [encoder.encode(texts.part(row, row + 1), "document")[0] for row in range(20)]
    torch.testing.assert_close(torch.from_numpy(together), torch.from_numpy(np.array(alone)))
