"""Cut and quantised vectors against loops and against the floats they stand for."""

from dataclasses import replace

import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings

from embedtrain.errors import UserError
from embedtrain.retrieval.compression import (
    Compression,
    dequantize_bytes,
    pack_codes,
    quantize_bytes,
)
from embedtrain.retrieval.search import search
from embedtrain.types import TokenVectors


def unit(rng, rows, dim=32):
    values = rng.normal(size=(rows, dim)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return unit(rng, 7), unit(rng, 90)


def tokens(rng, texts, length=5, dim=16):
    return TokenVectors(unit(rng, texts * length, dim), np.full(texts, length))


def test_without_compression_nothing_changes(data):
    queries, documents = data
    index = Compression().index(documents)
    assert index.num_bytes == documents.nbytes
    assert (index.search(queries, 9).indices == search(queries, documents, 9).indices).all()
    assert Compression().cut(documents, normalized=True) is documents


def test_cut_vectors_have_length_1_again_where_they_had(data):
    cut = Compression(dim=8).cut(data[1], normalized=True)
    assert cut.shape == (90, 8)
    assert np.allclose(np.linalg.norm(cut, axis=1), 1)
    assert np.allclose(cut, data[1][:, :8] / np.linalg.norm(data[1][:, :8], axis=1)[:, None])
    assert (Compression(dim=8).cut(data[1], normalized=False) == data[1][:, :8]).all()
    several = Compression(dim=4).cut(tokens(np.random.default_rng(1), 3), normalized=True)
    assert several.values.shape == (15, 4)
    with pytest.raises(UserError, match="more than the 32 dimensions there are; got 64"):
        Compression(dim=64).cut(data[1], normalized=True)


def test_a_byte_stands_for_the_middle_of_its_range(data):
    codes, lowest, step = quantize_bytes(data[1])
    values = dequantize_bytes(codes, lowest, step)
    assert (np.abs(values - data[1]) <= step / 2 + 1e-6).all()
    assert codes.min() == 0
    assert codes.max() == 255


def test_bytes_rank_nearly_as_floats_do_in_a_quarter_of_the_space(data):
    queries, documents = data
    index = Compression(quantize="int8").index(documents)
    assert index.num_bytes == documents.size + 2 * 4 * 32
    found, truth = index.search(queries, 5), search(queries, documents, 5)
    assert np.mean(found.indices == truth.indices) > 0.9
    assert np.allclose(found.scores, truth.scores, atol=0.01)


def test_bits_with_every_candidate_rescored_are_exact_over_the_signs(data):
    queries, documents = data
    index = Compression(quantize="binary", rescore=90).index(documents)
    assert index.num_bytes == documents.size // 8
    signs = np.where(documents >= 0, 1, -1).astype(np.float32) / np.float32(32**0.5)
    truth = search(queries, signs, 5)
    found = index.search(queries, 5)
    assert (found.indices == truth.indices).all()
    assert np.allclose(found.scores, truth.scores)


def test_few_candidates_are_the_nearest_by_hamming_distance(data):
    queries, documents = data
    index = Compression(quantize="binary", rescore=1).index(documents)
    for query, found in zip(queries, index.search(queries, 3).indices, strict=True):
        distances = ((query >= 0) != (documents >= 0)).sum(axis=1)
        assert sorted(distances[found]) == sorted(distances)[:3]


def test_zero_has_the_bit_that_training_gave_it():
    index = Compression(quantize="binary").index(np.array([[0.0, 1, -1, -0.0]], np.float32))
    assert index.signs.tolist() == [[0b11010000]]


def test_no_code_stands_for_more_than_the_highest_value():
    values = np.array([[-1.0], [1.55], [0.2351]], np.float32)
    codes, lowest, step = quantize_bytes(values)
    assert codes[:, 0].tolist() == [0, 255, 123]
    assert dequantize_bytes(codes, lowest, step)[:, 0] == pytest.approx(
        [-0.995, 1.55, 0.235], abs=1e-6
    )


@pytest.mark.parametrize(("quantize", "share"), [("int8", 0.3), ("binary", 0.1)])
def test_tokens_are_quantised_too(quantize, share):
    rng = np.random.default_rng(2)
    queries, documents = tokens(rng, 4), tokens(rng, 60)
    index = Compression(quantize=quantize).index(documents)
    assert index.num_bytes < share * documents.nbytes
    truth, found = search(queries, documents, 20), index.search(queries, 20)
    overlap = [len(set(a) & set(b)) for a, b in zip(truth.indices, found.indices, strict=True)]
    assert np.mean(overlap) > (18 if quantize == "int8" else 9)


def test_codes_are_those_of_sentence_transformers(data):
    codes, _, _ = quantize_bytes(data[1])
    np.testing.assert_array_equal(codes, quantize_embeddings(data[1], precision="uint8"))
    index = Compression(quantize="binary").index(data[1])
    np.testing.assert_array_equal(
        index.signs, quantize_embeddings(data[1], precision="ubinary").view(np.uint8)
    )


def test_codes_are_bytes_bits_and_two_planes_of_bits():
    x = np.array([[0.6, -0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    assert pack_codes(x, "int8").tolist() == [[76, -102, 0, 0, 0, 0, 0, 0, 0]]
    assert pack_codes(x, "binary").tolist() == [[0b10111111, 0b10000000]]
    assert pack_codes(x, "ternary").tolist() == [[0b10111111, 0b10000000, 0b11000000, 0]]
    assert Compression(quantize="ternary").index(x).num_bytes == 4


def test_three_levels_are_not_made_of_longer_vectors(data):
    several = tokens(np.random.default_rng(3), 9)
    longer = replace(several, values=3 * several.values)
    for documents in (3 * data[1], longer):
        with pytest.raises(UserError, match="ternary is for vectors of length 1"):
            Compression(quantize="ternary").index(documents)


def test_three_levels_lie_between_bits_and_bytes(data):
    queries, documents = data
    truth = search(queries, documents, 9).indices
    shared = {}
    for kind in ("binary", "ternary", "int8"):
        found = Compression(quantize=kind, rescore=90).index(documents).search(queries, 9)
        shared[kind] = np.mean(
            [len({*a} & {*b}) for a, b in zip(found.indices, truth, strict=True)]
        )
    assert shared["binary"] < shared["ternary"] < shared["int8"]
    several = tokens(np.random.default_rng(3), 9)
    coded = Compression(quantize="ternary").index(several)
    assert coded.num_bytes == 45 * 4 + several.nbytes - several.values.nbytes
