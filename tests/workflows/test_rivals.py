"""Which documents are searched where there are too many."""

import pytest
from pydantic import ValidationError

from embedtrain.data.readers.beir import RetrievalTask, bounded
from embedtrain.training.settings import TaskConfig
from embedtrain.workflows.rivals import with_fewer


@pytest.fixture
def task():
    """Ten queries, each with an answer and three documents that share its word, among a hundred that share none."""
    words = [f"word{n}" for n in range(10)]
    answers = {f"answer{n}": f"the answer says {word}" for n, word in enumerate(words)}
    rivals = {
        f"rival{n}-{many}": f"another text with {word} {'and more ' * many}"
        for n, word in enumerate(words)
        for many in range(1, 4)
    }
    others = {f"other{n}": f"nothing of the kind stands in number {n}" for n in range(100)}
    documents = answers | rivals | others
    return RetrievalTask(
        "toy", [f"q{n}" for n in range(10)], words, list(documents), list(documents.values()),
        {f"q{n}": {f"answer{n}": 1} for n in range(10)}, "print",
    )  # fmt: skip


def test_rivals_are_what_bm25_finds_for_the_queries_first_of_each(task):
    found = with_fewer(task, None, 30, "bm25")
    assert set(found.document_ids) == {
        *(f"answer{n}" for n in range(10)),
        *(f"rival{n}-{many}" for n in range(10) for many in (1, 2)),  # the shorter are nearer
    }
    assert found.document_ids == [one for one in task.document_ids if one in found.document_ids]
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    assert found.documents == [texts[one] for one in found.document_ids]
    assert found.qrels == task.qrels


def test_where_bm25_finds_too_few_any_others_fill_the_room(task):
    found = with_fewer(task, 2, 50, "bm25")
    assert len(found.documents) == 50
    rivals = [one for one in found.document_ids if one.startswith("rival")]
    assert {f"rival{one[1:]}-{many}" for one in found.query_ids for many in (1, 2, 3)} <= {*rivals}


def test_each_choice_has_a_fingerprint_of_its_own(task):
    prints = [
        with_fewer(task, 5, many, others).fingerprint
        for many in (20, 30)
        for others in ("random", "bm25")
    ]
    assert len({*prints, task.fingerprint}) == 5


def test_random_ones_are_those_of_before_and_all_is_all(task):
    assert with_fewer(task, 5, 30, "random") == bounded(task, 5, 30)
    assert with_fewer(task, None, 1_000, "bm25") is task
    assert with_fewer(task, None, None, "bm25") is task
    assert len(with_fewer(task, None, 3, "bm25").documents) == 10  # the answers


def test_a_fraction_has_no_documents_to_choose_rivals_from():
    assert TaskConfig(path="x", others="bm25").others == "bm25"
    with pytest.raises(ValidationError, match="a fraction has none"):
        TaskConfig(fraction=0.1, others="bm25")
