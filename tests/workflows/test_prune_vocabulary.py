import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.types import TokenVectors
from embedtrain.workflows.prune_vocabulary import prune


@pytest.fixture
def few(sentences, tmp_path) -> Path:
    """A file of texts that use part of the words."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(sentences[:12]) + "\n", encoding="utf-8")
    return path


def vectors(folder: str, texts: list[str]) -> np.ndarray:
    found = encode_texts(load_encoder(folder), texts, "document")
    return found.values if isinstance(found, TokenVectors) else found


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "late_interaction"])
def test_a_model_of_fewer_words_gives_the_same_vectors(
    kind, few, sentences, tmp_path, request, forked_reloads
):
    whole, smaller = request.getfixturevalue(kind), str(tmp_path / "smaller")
    done = prune(whole, [few], tmp_path / "smaller")
    assert done.after < done.before
    assert done.bytes_after < done.bytes_before
    assert done.differing == 0
    np.testing.assert_allclose(
        vectors(smaller, sentences[:12]), vectors(whole, sentences[:12]), atol=1e-6
    )
    config = json.loads((tmp_path / "smaller" / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(smaller)
    assert config["vocab_size"] == len(tokenizer) == done.after
    assert config["pad_token_id"] in (None, tokenizer.pad_token_id)
    assert not (tmp_path / "smaller" / "vocab.txt").exists()


def test_others_read_it(bert, few, sentences, tmp_path, forked_reloads):
    prune(bert, [few], tmp_path / "smaller")
    theirs, before = (
        SentenceTransformer(folder, device="cpu").encode(sentences[:12], normalize_embeddings=True)
        for folder in (str(tmp_path / "smaller"), bert)
    )
    np.testing.assert_allclose(theirs, before, atol=1e-6)


def test_words_of_prompts_stay(bert, sentences, tmp_path, forked_reloads):
    """No text has them, and every text is encoded behind them."""
    prompted, corpus = load_encoder(bert), tmp_path / "one.txt"
    words = sentences[30].split()
    changed = {"query_prompt": f"{words[0]} ", "document_prompt": f"{words[1]} "}
    prompted.contract = prompted.contract.model_copy(update=changed)
    before = encode_texts(prompted, sentences[:1], "query")
    from embedtrain.models.build import save_encoder

    save_encoder(prompted, tmp_path / "prompted")
    corpus.write_text(sentences[0] + "\n", encoding="utf-8")
    prune(str(tmp_path / "prompted"), [corpus], tmp_path / "smaller")
    after = encode_texts(load_encoder(str(tmp_path / "smaller")), sentences[:1], "query")
    np.testing.assert_allclose(after, before, atol=1e-6)
    kept = AutoTokenizer.from_pretrained(tmp_path / "smaller").get_vocab()
    whole = AutoTokenizer.from_pretrained(bert).get_vocab()
    assert {words[0], words[1]} & set(whole) <= set(kept)


def test_rare_words_may_be_dropped_and_are_counted(roberta, few, tmp_path, forked_reloads):
    every = prune(roberta, [few], tmp_path / "every")
    often = prune(roberta, [few], tmp_path / "often", min_count=4)
    assert often.after < every.after
    assert 0 < often.differing <= often.texts == 12


def test_a_tenth_of_the_texts_tells_of_unseen_words(bert, tmp_path, sentences, forked_reloads):
    """The first of ten is held out: its words occur in none of the others."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join([sentences[40], *["x"] * 9]) + "\n", encoding="utf-8")
    assert 0.3 < prune(bert, [corpus], tmp_path / "smaller").missing < 1.0


def test_what_cannot_be_cut_is_refused(sparse_model, bert, few, tmp_path):
    with pytest.raises(UserError, match="coordinates or weights for each word"):
        prune(sparse_model, [few], tmp_path / "out")
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="is empty"):
        prune(bert, [empty], tmp_path / "out")
    assert not (tmp_path / "out").exists()
