"""Files of sparse vectors, as scipy and safetensors read them."""

import json

import numpy as np
import pytest
import scipy.sparse
from posting_toys import random_sparse, sparse
from safetensors.numpy import load_file

from embedtrain.errors import UserError
from embedtrain.retrieval.sparse.vector_file import load_vectors, save_vectors, save_words


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_what_is_written_is_read(tmp_path, ending, as_bytes):
    vectors = random_sparse(40, 60, 0)
    path = tmp_path / f"vectors.{ending}"
    save_vectors(path, vectors, as_bytes=as_bytes)
    found = load_vectors(path)
    step = float(vectors.values.max()) / 255 if as_bytes else 0
    np.testing.assert_allclose(found.dense(), vectors.dense(), atol=step / 2 + 1e-7)
    assert found.dim == 60
    assert (found.values != 0).all()


def test_scipy_and_safetensors_read_the_plain_files(tmp_path):
    vectors = sparse({1: 2.0, 5: 1.0}, {}, {5: 3.0})
    save_vectors(tmp_path / "a.npz", vectors)
    matrix = scipy.sparse.load_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(matrix.toarray(), vectors.dense())
    save_vectors(tmp_path / "a.safetensors", vectors)
    arrays = load_file(tmp_path / "a.safetensors")
    assert arrays["offsets"].tolist() == [0, 2, 2, 3]
    assert arrays["indices"].tolist() == [1, 5, 5]


def test_bytes_that_round_to_nothing_are_left_out(tmp_path):
    save_vectors(tmp_path / "a.npz", sparse({0: 2.55, 1: 0.001}, {2: 1.0}), as_bytes=True)
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["data"].tolist() == [255, 100]
        assert stored["data"].dtype == np.uint8
        assert stored["indptr"].tolist() == [0, 1, 2]


def test_words_stand_beside(tmp_path):
    place = save_words(tmp_path / "a.npz", ["[PAD]", "##ä", 'q"'])
    assert place.name == "a.words.json"
    assert json.loads(place.read_text(encoding="utf-8")) == ["[PAD]", "##ä", 'q"']


@pytest.mark.parametrize("content", [b"nothing of the kind", b"", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_another_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="holds no sparse vectors"):
        load_vectors(tmp_path / name)


def test_scipys_own_file_is_read_if_its_rows_are_texts(tmp_path):
    vectors = sparse({1: 2.0, 5: 1.0}, {}, {5: 3.0})
    scipy.sparse.save_npz(tmp_path / "a.npz", vectors.matrix())
    np.testing.assert_array_equal(load_vectors(tmp_path / "a.npz").dense(), vectors.dense())
    scipy.sparse.save_npz(tmp_path / "b.npz", vectors.matrix().tocsc())
    with pytest.raises(UserError, match="its format is b'csc'"):
        load_vectors(tmp_path / "b.npz")
