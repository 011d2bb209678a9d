import numpy as np
import pytest
from synthesis_toys import chunk, row

from embedtrain.models.build import load_encoder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.synthesis.reader import QueryVectors, open_reader
from embedtrain.synthesis.round_trip import ask_reader, ranks_of
from embedtrain.synthesis.settings import RoundTrip

NAMES = ("a#1", "a#2", "b", "c", "d")


def test_the_rank_is_that_of_the_document_or_its_near_copy():
    chunks = [chunk("text", name) for name in NAMES]
    clusters = {"a": "a", "b": "b", "c": "b", "d": "d"}
    rows = [row("query of d", name="d"), row("query of c", name="c"), row("query of b", name="b")]

    def reader(queries, _):
        found = {
            "query of d": [0, 1, 2, 4],
            "query of c": [2, 0, -1, -1],
            "query of b": [0, 1, 4, 4],
        }
        indices = np.array([found[query] for query in queries])
        return SearchResult(indices, np.zeros(indices.shape, np.float32))

    ask_reader(rows, chunks, clusters, reader, RoundTrip(top=2), lambda _: None)
    assert [(one.rank, one.taken_by) for one in rows] == [
        (3, "round_trip"),  # two chunks of one document count once
        (1, ""),
        (None, "round_trip"),
    ]
    assert ranks_of(rows, 20) == {"1": 1, "3": 1, "none": 1}


@pytest.mark.parametrize("who", ["bm25", "base", "fused"])
def test_each_reader_finds_a_text_by_its_own_words(who, bert, tmp_path, sentences):
    texts = list(dict.fromkeys(one for one in sentences if len(one.split()) > 6))[:20]
    vectors = QueryVectors(load_encoder(bert), tmp_path, "fp32")
    found = open_reader(RoundTrip(reader=who), texts, vectors, tmp_path)(texts, 5)
    assert found.indices.shape == (len(texts), 5)
    assert (found.indices[:, 0] == np.arange(len(texts))).mean() > 0.8
    assert open_reader(RoundTrip(reader=None), texts, None, tmp_path) is None
