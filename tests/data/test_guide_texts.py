"""What a guide reads in place of a row's texts, and the ids that batches know it by."""

import numpy as np
import pytest

from embedtrain.contract.spans import mark
from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import Columns, Example, SourceConfig, text_id
from embedtrain.data.guide_texts import guide_texts
from embedtrain.data.mixture import Draw
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import load_backbone

CONTRACT = Contract(
    pooling="mean",
    similarity="cosine",
    query_prompt="",
    document_prompt="",
    query_length=16,
    document_length=16,
    spans="mean",
)


def test_a_marked_text_is_read_without_what_is_around_its_span():
    example = Example("red cat", (mark("a red cat runs", [2, 9]),), ("a tree",))
    assert guide_texts(example, "span") == (
        "red cat",
        [("document", "red cat"), ("document", "a tree")],
    )


def test_the_source_of_a_translation_is_read_as_a_query_for_both():
    example = Example("red cat", ("chat rouge", "rouge chat"))
    assert guide_texts(example, "source") == ("red cat", [("query", "red cat")] * 2)


def test_a_question_written_out_is_read_in_place_of_the_question_alone():
    example = Example("where is it", ("in a tree",), guide_query="where is the cat")
    assert guide_texts(example, "rewritten") == (
        "where is the cat",
        [("document", "in a tree")],
    )
    with pytest.raises(UserError, match=r"columns\.guide_text is no column of this source"):
        guide_texts(Example("where is it", ("in a tree",)), "rewritten")


@pytest.fixture
def built(bert, tmp_path, write_jsonl):
    """Return what builds the batch of all rows of a source with a rule."""
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)

    def build(rule, rows):
        config = SourceConfig(path=str(write_jsonl(rows)), columns=Columns(guide_text=rule))
        source = tokenize_source(open_source(config), tokenization, tmp_path / "cache")
        return BatchBuilder([source])(Draw(0, 0, np.arange(len(rows)))).relevance

    return build


def test_a_batch_has_the_ids_of_what_the_guide_reads(built):
    rows = [
        {"query": "cat", "positive": {"text": "a red cat runs", "span": [2, 9]}},
        {"query": "dog", "positive": "blue dog", "negatives": ["tree"]},
    ]
    relevance = built("span", rows)
    assert relevance.query_guide_ids.tolist() == [text_id("cat"), text_id("dog")]
    expected = [text_id(text) for text in ("red cat", "blue dog", "tree")]
    assert relevance.document_guide_ids.tolist() == expected
    as_query = [~text_id(text) for text in ("cat", "dog", "dog")]
    assert built("source", rows).document_guide_ids.tolist() == as_query


def test_without_a_rule_the_guide_reads_the_texts_and_no_ids_travel(built):
    relevance = built(None, [{"query": "cat", "positive": "a cat"}])
    assert relevance.query_guide_ids is None
    assert relevance.document_guide_ids is None


def test_a_column_must_be_there_and_be_another_than_the_querys(built):
    row = {"query": "it", "positive": "a cat", "rewritten": "the cat"}
    assert built("rewritten", [row]).query_guide_ids.tolist() == [text_id("the cat")]
    with pytest.raises(UserError, match="has no column 'written'"):
        built("written", [row])
    with pytest.raises(UserError, match="guide_text is the column of the query"):
        built("query", [row])
