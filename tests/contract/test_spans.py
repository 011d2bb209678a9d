"""Spans of texts: from places of characters to tokens that carry a bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.contract.spans import IN_SPAN, is_marked, mark, unmark
from embedtrain.contract.texts import Tokenization
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense
from embedtrain.models.dense.config import DenseConfig

TEXT = "the red cat jumps over a small dog"


@given(
    st.text("ab é東", min_size=1, max_size=20),
    st.lists(st.integers(0, 20), min_size=2, max_size=6, unique=True),
)
def test_a_mark_is_read_back_and_the_text_is_as_it_was(text, places):
    ends = sorted(min(place, len(text)) for place in places)
    pieces = [[a, b] for a, b in zip(ends[::2], ends[1::2], strict=False) if text[a:b].strip()]
    if not pieces:
        return
    marked = mark(text, pieces)
    assert is_marked(marked)
    plain, found = unmark(marked)
    assert plain == text
    assert [text[a:b] for a, b in found] == [text[a:b].strip() for a, b in pieces]
    assert unmark(text) == (text, [])


def tokens_of(model, marked: str, side: str = "document") -> tuple[list[str], list[str]]:
    """Return all tokens and those of the span."""
    (ids,) = Tokenization(model.tokenizer, model.contract)([marked], side)
    name = model.tokenizer.convert_ids_to_tokens
    return name((ids & (IN_SPAN - 1)).tolist()), name((ids[ids >= IN_SPAN] - IN_SPAN).tolist())


@pytest.fixture(scope="module")
def model(bert):
    prompts = {"document": {"prompt": "passage: red "}}
    return build_dense(DenseConfig(backbone=bert, spans="mean", **prompts))


def test_the_tokens_of_a_span_carry_a_bit_whatever_stands_before_the_text(model):
    for side in ("query", "document"):
        every, inside = tokens_of(model, mark(TEXT, [4, 11]), side)
        assert inside == model.tokenizer.tokenize("red cat")
        plain, _ = tokens_of(model, TEXT, side)
        assert every == plain
    _, inside = tokens_of(model, mark(TEXT, [[3, 8], [31, 34]]))
    assert inside == model.tokenizer.tokenize("red dog"), "white space at the ends does not count"


def test_a_token_that_the_span_cuts_belongs_to_it(model):
    pieces = model.tokenizer.tokenize("jumps")
    assert tokens_of(model, mark(TEXT, [12, 13]))[1] == pieces[:1]
    assert tokens_of(model, mark(TEXT, [12, 17]))[1] == pieces


def test_every_tokenizer_marks_the_same_words(roberta, llama):
    for folder in (roberta, llama):
        model = build_dense(DenseConfig(backbone=folder, spans="mean", pooling="mean"))
        _, inside = tokens_of(model, mark(TEXT, [[4, 7], [25, 34]]))
        assert inside == model.tokenizer.tokenize("red small dog")


def test_plain_texts_have_the_ids_they_always_had(model, bert):
    found = model.tokenization([TEXT, mark(TEXT, [0, 3])], "query")[0]
    np.testing.assert_array_equal(found, load_dense(bert).tokenization([TEXT], "query")[0])


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ([3], "no pair of places"),
        ([], "no pair of places"),
        ("0-3", "no pair of places"),
        ([0, 3.0], "no pair of places"),
        ([True, 3], "no pair of places"),
        ([5, 5], "does not ascend"),
        ([0, 99], "does not ascend within the 34"),
        ([[8, 11], [4, 7]], "does not ascend"),
        ([-3, 2], "does not ascend"),
        ([3, 4], "white space only"),
    ],
)
def test_what_is_no_span_of_the_text_is_refused_with_its_place(span, message):
    with pytest.raises(UserError, match=rf"^pairs.jsonl:3 .*{message}"):
        mark(TEXT, span, "pairs.jsonl:3 span")


def test_a_span_that_is_cut_off_or_that_nothing_pools_is_refused(bert):
    short = build_dense(DenseConfig(backbone=bert, spans="mean", query={"length": 6}))
    with pytest.raises(UserError, match=r"the span 'small dog' lies behind the 6 tokens.*query"):
        short.tokenization([TEXT, mark(TEXT, [25, 34])], "query")
    with pytest.raises(UserError, match=r"has a span; got .*small.*Set model\.spans"):
        load_dense(bert).tokenization(["red", mark(TEXT, [25, 34])], "query")
