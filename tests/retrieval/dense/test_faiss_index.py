"""faiss indexes against exact search."""

import faiss
import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.retrieval.dense import faiss_index
from embedtrain.retrieval.dense.exact import search_exact
from embedtrain.retrieval.dense.faiss_index import (
    build_index,
    load_index,
    measure_recall,
    save_index,
    search_index,
)


def unit_vectors(num_rows, dim, seed):
    vectors = np.random.default_rng(seed).normal(size=(num_rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def documents():
    return unit_vectors(500, 16, seed=0)


@pytest.fixture(scope="module")
def queries():
    return unit_vectors(40, 16, seed=1)


def test_a_flat_index_gives_what_exact_search_gives(queries, documents):
    result = search_index(build_index(documents), queries, 10)
    exact = search_exact(queries, documents, 10)
    np.testing.assert_array_equal(result.indices, exact.indices)
    np.testing.assert_allclose(result.scores, exact.scores, atol=1e-6)


def test_equal_documents_come_in_the_order_of_their_index():
    documents = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)[::-1].copy()
    result = search_index(build_index(documents), np.eye(4, dtype=np.float32)[:1], 5)
    assert result.indices.tolist() == [[15, 16, 17, 18, 19]]


def test_more_probes_find_more_and_all_probes_find_everything(queries, documents):
    recalls = [
        measure_recall(
            build_index(documents, "IVF12,Flat", parameters=f"nprobe={probes}"),
            queries,
            documents,
            10,
        )
        for probes in (1, 4, 12)
    ]
    assert 0.1 < recalls[0] < recalls[1] < 1.0
    assert recalls[2] == 1.0


def test_any_of_several_equal_documents_counts_as_found():
    documents = np.repeat(unit_vectors(1, 7, seed=0), 40, axis=0)
    last_half = faiss.IndexIDMap2(build_index(documents[:0]))
    last_half.add_with_ids(documents[20:], np.arange(20, 40))
    assert search_index(last_half, documents[:1], 5).indices.tolist() == [[20, 21, 22, 23, 24]]
    assert measure_recall(last_half, documents[:3], documents, 5) == 1.0


def test_an_index_of_half_the_documents_finds_about_half(queries, documents):
    recall = measure_recall(build_index(documents[:250]), queries, documents, 10)
    assert 0.35 < recall < 0.65


def test_unused_places_are_marked_and_never_count_as_found(queries, documents):
    index = build_index(documents, "IVF12,Flat", parameters="nprobe=1")
    result = search_index(index, queries, 200)
    unused = result.indices < 0
    assert unused.any()
    assert (result.scores[unused] == -np.inf).all()
    assert (np.diff(unused.astype(int), axis=1) >= 0).all()
    # An unused place is -1, which would be the last document, the best of all for this query.
    assert measure_recall(index, documents[-1:], documents, 200) < 0.6


def test_documents_that_an_index_lacks_are_not_found(queries, documents):
    query = queries[:1]
    best_first = documents[search_exact(query, documents, len(documents)).indices[0]]
    assert measure_recall(build_index(best_first[:3]), query, best_first, 10) == 0.3


def test_a_mapped_file_and_small_blocks_build_the_same_index(
    tmp_path, monkeypatch, queries, documents
):
    np.save(tmp_path / "documents.npy", documents.astype(np.float16))
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    whole = search_index(build_index(mapped, "IVF12,Flat"), queries, 5)
    monkeypatch.setattr(faiss_index, "ROWS_PER_BLOCK", 64)
    blocks = search_index(build_index(mapped, "IVF12,Flat"), queries, 5)
    np.testing.assert_array_equal(whole.indices, blocks.indices)


def test_a_saved_index_comes_back_with_its_search_parameters(tmp_path, queries, documents):
    index = build_index(documents, "IVF12,SQ8", parameters="nprobe=3")
    save_index(index, tmp_path / "index.faiss")
    loaded = load_index(tmp_path / "index.faiss")
    before, after = (search_index(each, queries, 10) for each in (index, loaded))
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert [file.name for file in tmp_path.iterdir()] == ["index.faiss"]


@pytest.mark.parametrize(
    ("factory", "parameters", "message"),
    [
        ("nonsense", "", "could not parse index string nonsense"),
        ("Flat", "speed=2", "could not set parameter speed"),
        ("IVF4096,Flat", "", "should be at least as large as number of clusters"),
    ],
)
def test_an_index_that_faiss_refuses_is_the_users_mistake(documents, factory, parameters, message):
    with pytest.raises(UserError, match=message):
        build_index(documents, factory, parameters=parameters)


def test_a_file_that_is_no_index_is_the_users_mistake(tmp_path):
    (tmp_path / "index.faiss").write_text("hello")
    with pytest.raises(UserError, match=r"index\.faiss is not a faiss index"):
        load_index(tmp_path / "index.faiss")
    with pytest.raises(UserError, match="No such file"):
        load_index(tmp_path / "absent.faiss")


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path, documents):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="lies below a file"):
        save_index(build_index(documents), tmp_path / "file" / "index.faiss")


def test_nan_and_queries_of_another_model_are_refused(queries, documents):
    with pytest.raises(UserError, match="dimension 16; got 8"):
        search_index(build_index(documents), queries[:, :8], 5)
    with pytest.raises(UserError, match="hold NaN"):
        build_index(np.full((3, 4), np.nan, np.float32))


def test_the_bytes_of_an_index_are_those_of_its_file(tmp_path, documents):
    index = build_index(documents, "HNSW8")
    save_index(index, tmp_path / "index.faiss")
    assert faiss_index.index_bytes(index) == (tmp_path / "index.faiss").stat().st_size
