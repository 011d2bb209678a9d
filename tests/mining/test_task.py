from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.mining.task import from_retrieval_task


def test_a_document_judged_0_is_no_positive():
    qrels = {"q": {"a": 0, "b": 1, "c": 2}}
    task = from_retrieval_task(RetrievalTask("t", ["q"], ["cat"], [*"abc"], [*"xyz"], qrels, "f"))
    assert [rows.tolist() for rows in task.positives] == [[1, 2]]
