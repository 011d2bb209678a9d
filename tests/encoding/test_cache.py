"""Vectors that are computed once are whole, however many processes compute them, whatever befell their files."""

import multiprocessing
import os

import numpy as np
import pytest

from embedtrain.encoding import cache as module
from embedtrain.encoding.cache import (
    VECTORS,
    embed_once,
    keep_embeddings,
    load_embeddings,
    model_key,
)
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import build_encoder, load_dense, load_encoder
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.types import TokenVectors

TEXTS = ["red cat", "blue dog", "a small house", "the tree", "bird", "a large tree near the house"]


def cut_into(size, monkeypatch):
    """Let blocks have so many texts, as if there were millions of them."""
    for name in ("FEWEST", "MOST"):
        monkeypatch.setattr(f"embedtrain.encoding.blocks.{name}", size)


@pytest.mark.parametrize("kind", ["bert", "late_interaction"])
def test_two_runs_at_once_share_a_cache(kind, sentences, tmp_path, request, monkeypatch):
    cut_into(8, monkeypatch)
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


@pytest.fixture
def blocks_of_two(monkeypatch):
    """Let a few texts be several blocks; return the texts that were encoded."""
    encoded = []
    inner = module.encode_pieces

    def noting(pieces):
        for piece in pieces:
            encoded.extend(piece)
            yield piece

    cut_into(2, monkeypatch)
    monkeypatch.setattr(
        module,
        "encode_pieces",
        lambda model, texts, side, **named: inner(model, noting(texts), side, **named),
    )
    return encoded


@pytest.fixture
def dense(bert):
    return load_dense(str(bert))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-8])


def flip_second_block(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (truncate, TEXTS),
        (lambda path: path.write_bytes(b""), TEXTS),
        (lambda path: path.unlink(), TEXTS),
        (lambda path: np.save(path, np.zeros((2, 3), dtype=np.float32)), TEXTS),
        (flip_second_block, TEXTS[2:4]),
        (lambda path: (path.parent / "000000000004.sum").write_text(""), TEXTS[4:]),
        (lambda path: None, []),
    ],
    ids=["truncated", "emptied", "missing", "another", "flipped", "mark", "whole"],
)
def test_vectors_that_are_not_as_they_were_written_are_encoded_again(
    damage, again, dense, blocks_of_two, tmp_path, capsys
):
    first = np.array(embed_once(dense, "key", TEXTS, "document", tmp_path))
    [path] = tmp_path.rglob(VECTORS)
    damage(path)
    blocks_of_two.clear()
    capsys.readouterr()
    second = embed_once(dense, "key", TEXTS, "document", tmp_path)
    np.testing.assert_array_equal(second, first)
    assert blocks_of_two == again
    said = [line for line in capsys.readouterr().err.splitlines() if "vectors.npy" in line]
    is_set_aside = again == TEXTS and bool(list(path.parent.glob("*.damaged-*")))
    assert len(said) == (1 if is_set_aside or again == TEXTS[2:4] or again == TEXTS[4:] else 0)


def test_vectors_that_were_kept_are_found_only_while_they_are_whole(blocks_of_two, tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    keep_embeddings(tmp_path / "kept", vectors)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "kept", 4), vectors)
    truncate(tmp_path / "kept" / VECTORS)
    assert load_embeddings(tmp_path / "kept", 4) is None
    keep_embeddings(tmp_path / "kept", vectors)
    flip_second_block(tmp_path / "kept" / VECTORS)
    assert load_embeddings(tmp_path / "kept", 4) is None


def test_token_vectors_that_are_not_as_they_were_written_are_encoded_again(
    bert, blocks_of_two, tmp_path, capsys
):
    config = LateInteractionConfig(kind="late_interaction", backbone=str(bert), dim=8)
    model = build_encoder(config, "cpu").eval()
    first = np.array(embed_once(model, "key", TEXTS, "document", tmp_path).values)
    [path] = tmp_path.rglob("joined/values.npy")
    truncate(path)
    second = embed_once(model, "key", TEXTS, "document", tmp_path)
    np.testing.assert_array_equal(second.values, first)
    assert "joined is damaged: values.npy has" in capsys.readouterr().err
