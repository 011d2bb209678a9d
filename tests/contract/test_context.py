"""Chunks within their documents, and windows of documents that are too long."""

import numpy as np
import pytest
from sentence_toys import WORDS

from embedtrain.contract.context import REACH, contexts_of, marked_in, put_together
from embedtrain.contract.spans import IN_SPAN, mark, unmark
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig


def test_each_chunk_stands_where_it_is_in_the_document_of_all():
    for number, (document, (start, end)) in enumerate(put_together(["a cat", "runs", "far"])):
        assert document == "a cat\nruns\nfar"
        assert document[start:end] == ["a cat", "runs", "far"][number]


def test_texts_of_one_owner_make_a_document_in_their_order_and_others_stand_alone():
    found = contexts_of(["a", "b", "c", " ", "d"], ["x", "y", "x", "x", None])
    assert [document for document, _ in found] == ["a\nc", "b", "a\nc", " ", "d"]
    assert marked_in(found, 8)[3] == " "
    assert [unmark(text)[0] for text in marked_in(found, 8)] == ["a\nc", "b", "a\nc", " ", "d"]


def test_neighbours_in_a_long_document_keep_the_same_part_of_it():
    chunks = [f"chunk {number:03d}" for number in range(400)]
    marked = marked_in(put_together(chunks), 10)
    plain = [unmark(text) for text in marked]
    assert [text[a:b] for text, [(a, b)] in plain] == chunks
    assert max(len(text) for text, _ in plain) <= 4 * REACH * 10
    assert len({text for text, _ in plain}) < 60


@pytest.fixture(scope="module")
def short(bert):
    settings = {"prompt": "passage: ", "length": 12}
    config = DenseConfig(backbone=bert, spans="mean", in_context=True, document=settings)
    return build_dense(config)


def read(model, text: str) -> tuple[list[str], list[str]]:
    """Return the tokens of a document and those of its span."""
    (ids,) = model.tokenization([text], "document")
    name = model.tokenizer.convert_ids_to_tokens
    return name((ids & (IN_SPAN - 1)).tolist()), name((ids[ids >= IN_SPAN] - IN_SPAN).tolist())


def test_of_a_long_text_the_tokens_around_its_span_are_kept_with_prompt_and_ends(short):
    text = " ".join(WORDS)
    whole, _ = read(short, mark(text, [0, 3]))
    head = whole[: whole.index("red")]
    for number, word in enumerate(WORDS):
        start = text.index(f"{word} ") if number < len(WORDS) - 1 else text.rindex(word)
        tokens, inside = read(short, mark(text, [start, start + len(word)]))
        assert inside == [word]
        assert len(tokens) <= 12
        assert tokens[: len(head)] == head
        assert tokens[-1] == whole[-1]
        body = tokens[len(head) : -1]
        assert body == WORDS[WORDS.index(body[0]) : WORDS.index(body[0]) + len(body)]


def test_windows_lie_on_a_grid_so_that_neighbours_are_encoded_together(short):
    text = " ".join(WORDS)
    starts = [text.index(word) for word in WORDS[4:8]]
    marked = [mark(text, [start, start + 3]) for start in starts]
    plain = {
        tuple((ids & (IN_SPAN - 1)).tolist()) for ids in short.tokenization(marked, "document")
    }
    assert len(plain) < len(marked)


def test_a_text_that_fits_has_the_tokens_it_always_had(short, bert):
    plain = build_dense(
        DenseConfig(backbone=bert, spans="mean", document={"prompt": "passage: ", "length": 12})
    )
    texts = [mark("red cat runs", [4, 7]), "red cat runs over a small tree near the large house"]
    for one, other in zip(
        short.tokenization(texts, "document"), plain.tokenization(texts, "document"), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_contexts_need_spans(bert):
    with pytest.raises(UserError, match=r"model\.in_context marks chunks"):
        build_dense(DenseConfig(backbone=bert, in_context=True))
