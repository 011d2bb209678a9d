"""Documents of chunks as rows: an example for each query, a batch that holds each chunk once."""

import numpy as np
import pytest
import torch

from embedtrain.contract.spans import mark
from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import SourceConfig
from embedtrain.data.mixture import Draw, Mixture
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import text_id, tokenize_source
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import load_backbone

ROWS = [
    {
        "chunks": ["the red cat", "it runs far", "it sleeps"],
        "queries": [{"text": "cat runs", "chunk": 1}, {"text": "cat sleeps", "chunk": [2, 1]}],
    },
    {"chunks": ["a blue dog", "it jumps"], "queries": [{"text": "dog jumps", "chunk": 1}]},
    {"chunks": ["one bird", "it runs"], "queries": [{"text": "bird runs", "chunk": 1}]},
]
FIRST = "the red cat\nit runs far\nit sleeps"
MARKED = [mark(FIRST, span) for span in ([0, 11], [12, 23], [24, 33])]


def test_a_query_has_the_chunks_of_its_document_for_candidates(write_jsonl):
    examples = list(open_source(SourceConfig(path=str(write_jsonl(ROWS)))).examples())
    assert [example.query for example in examples][:2] == ["cat runs", "cat sleeps"]
    assert examples[0].positives == (MARKED[1],)
    assert examples[0].negatives == (MARKED[0], MARKED[2])
    assert examples[1].positives == (MARKED[2], MARKED[1])
    assert examples[0].document == examples[1].document == FIRST


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chunks": [], "queries": [{"text": "a", "chunk": 0}]}, "chunks must be a list of texts"),
        ({"chunks": ["a"], "queries": []}, "queries must be a list"),
        ({"chunks": ["a"], "queries": [{"text": " ", "chunk": 0}]}, "queries 0 has no text"),
        ({"chunks": ["a"], "queries": [{"text": "b", "chunk": 1}]}, "names none of the 1 chunks"),
        ({"chunks": ["a"], "queries": [{"text": "b", "chunk": True}]}, "names none of the 1"),
        ({"chunks": ["a"], "queries": ["b"]}, "queries 0 has no text"),
    ],
)
def test_what_names_no_chunk_is_refused(write_jsonl, row, message):
    with pytest.raises(UserError, match=message):
        list(open_source(SourceConfig(path=str(write_jsonl([row])))).examples())


@pytest.fixture
def source(bert, tmp_path, write_jsonl):
    contract = Contract(
        pooling="mean", similarity="cosine", query_prompt="", document_prompt="",
        query_length=16, document_length=16, spans="mean",
    )  # fmt: skip
    tokenization = Tokenization(load_backbone(bert).tokenizer, contract)
    return tokenize_source(
        open_source(SourceConfig(path=str(write_jsonl(ROWS)))), tokenization, tmp_path
    )


def test_queries_of_a_document_share_its_chunks_in_a_batch(source):
    relevance = BatchBuilder([source])(Draw(0, 0, np.array([1, 2, 0]))).relevance
    ids = [text_id(text) for text in (MARKED[2], MARKED[0], MARKED[1])]
    owners = relevance.owners.tolist()
    assert owners == [0, 0, 1, 1, 0], (
        "the second query brings the chunk that the first did not show"
    )
    assert set(relevance.document_ids[[0, 1, 4]].tolist()) == set(ids)
    assert relevance.query_owners.tolist() == [0, 1, 0]
    golds = relevance.document_ids[relevance.positives[:, 0]].tolist()
    assert golds[2] == ids[2]
    assert golds[0] in (ids[0], ids[2])
    assert text_id(MARKED[1]) in relevance.known_positives[0].tolist()


def test_no_rank_gets_a_part_of_a_document(source):
    mixture = Mixture([4], [1.0], batch_size=4, num_steps=5, seed=0, keys=[source.shares])
    builder = BatchBuilder([source])
    for step in range(5):
        draw = mixture.draw(step)
        whole = builder(draw).relevance
        parts = [builder(draw.part(rank, 2)).relevance for rank in range(2)]
        assert sum(len(part.query_ids) for part in parts) == 4
        found = torch.cat([part.document_ids for part in parts])
        assert found.tolist() == whole.document_ids.tolist()
    with pytest.raises(UserError, match="give a device no document of its own"):
        [builder(draw.part(rank, 4)) for rank in range(4)]


def test_rows_that_share_nothing_are_cut_as_they_always_were():
    draw = Draw(0, 0, np.arange(7))
    assert draw.side_by_side(np.full(7, -1)) is draw
    mixed = draw.side_by_side(np.array([5, -1, 5, 3, -1, 3, 5]))
    assert mixed.rows.tolist() == [0, 2, 6, 1, 3, 5, 4]
    assert mixed.cuts.tolist() == [0, 3, 4, 6, 7]
    assert [mixed.part(rank, 3).bounds for rank in range(3)] == [(0, 3), (3, 4), (4, 7)]
