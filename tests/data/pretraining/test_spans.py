import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from embedtrain.data.pretraining.corpus import CorpusConfig, open_corpus
from embedtrain.data.pretraining.spans import tokenize_corpus
from embedtrain.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(bert):
    return AutoTokenizer.from_pretrained(bert)


@pytest.fixture
def spans(tokenizer, tmp_path):
    def make(documents: list[str], **settings):
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        options = {"size": 6, "mode": "split", "min_tokens": 2} | settings
        corpus = open_corpus(CorpusConfig(path=str(path)))
        return tokenize_corpus(corpus, tokenizer, cache=tmp_path / "cache", **options)

    return make


def decoded(source, tokenizer) -> list[str]:
    return [tokenizer.decode(source.span(i)[0]) for i in range(len(source))]


LONG = "the cat runs. the dog sleeps near the tree. a bird"
"""11 words and 2 full stops."""


def test_documents_are_split_at_sentence_ends(spans, tokenizer):
    source = spans([LONG, "red cat"])
    assert decoded(source, tokenizer) == [  # this tokenizer knows no full stop
        "the cat runs [UNK]",
        "the dog sleeps near the tree",
        "[UNK] a bird",
        "red cat",
    ]


def test_truncating_keeps_the_first_span_of_each_document(spans, tokenizer):
    assert len(spans([LONG, "red cat", LONG], mode="truncate")) == 3


def test_a_text_and_its_translation_are_the_two_spans_of_a_document(tokenizer, tmp_path):
    rows = [
        ("the cat runs. the dog sleeps near the tree", "red cat"),
        ("cat", "red dog"),
        ("", "the dog"),
    ]
    rows.append(("a bird", "the tree"))
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows))
    corpus = open_corpus(CorpusConfig(path=str(path), column="a", translation="b"))
    settings = {"size": 6, "mode": "parallel", "min_tokens": 2, "cache": tmp_path / "cache"}
    source = tokenize_corpus(corpus, tokenizer, **settings)
    assert decoded(source, tokenizer) == ["the cat runs [UNK]", "red cat", "a bird", "the tree"]
    assert [source.document(i) for i in range(2)] == [(0, 2), (2, 2)]
    report = source.report
    assert (report.num_documents, report.num_empty, report.num_short) == (4, 1, 1)


def test_packing_loses_no_token_and_fills_spans(spans, tokenizer):
    documents = ["red cat", "the dog", "a bird jumps", LONG] * 5
    source = spans(documents, mode="pack", min_tokens=1)
    separator = tokenizer.sep_token_id
    expected = [
        token
        for text in documents
        for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], separator]
    ]
    found = [source.span(i)[0] for i in range(len(source))]
    assert np.concatenate(found).tolist() == expected
    assert all(len(tokens) > 4 for tokens in found[:-1])
    assert max(map(len, found)) <= 6
    assert source.num_documents == 0


def test_empty_documents_and_short_spans_are_left_out_and_counted(spans):
    report = spans(["", "   ", "cat", "red cat"]).report
    assert (report.num_documents, report.num_empty, report.num_short) == (4, 2, 1)
    assert (report.num_spans, report.num_tokens, report.num_words) == (1, 2, 2)


def test_documents_know_their_spans(spans):
    source = spans(["red cat", LONG, LONG])
    assert [source.document(i) for i in range(source.num_documents)] == [(1, 3), (4, 3)]


def test_a_corpus_without_usable_text_is_refused_and_leaves_no_cache(spans, tmp_path):
    with pytest.raises(UserError, match="holds no text of at least 2 tokens; got '2 documents, 1"):
        spans(["", "cat"])
    assert not list(tmp_path.glob("cache/spans/*"))


def test_the_cache_is_reused_until_a_setting_changes(spans, tmp_path):
    for settings, folders in (({}, 1), ({}, 1), ({"size": 5}, 2), ({"mode": "truncate"}, 3)):
        spans([LONG], **settings)
        assert len(list(tmp_path.glob("cache/spans/*"))) == folders


def test_special_tokens_written_in_the_text_keep_their_place(spans, tokenizer):
    tokens, _ = spans(["the cat [SEP] the dog"]).span(0)
    assert tokens.tolist()[2] == tokenizer.sep_token_id


def test_a_separator_of_packed_documents_is_a_word_of_its_own(spans, tokenizer):
    source = spans(["red cat", "the dog"] * 5, mode="pack", min_tokens=1)
    for tokens, starts in map(source.span, range(len(source))):
        assert starts[tokens == tokenizer.sep_token_id].all()
