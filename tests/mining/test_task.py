from embedtrain.contract.spans import mark
from embedtrain.contract.texts import Contract
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.mining.task import from_retrieval_task, with_corpora


def test_marked_texts_beside_a_corpus_with_contexts_stand_in_their_own():
    def task(documents, contexts=None):
        names = [f"d{number}" for number, _ in enumerate(documents)]
        return from_retrieval_task(
            RetrievalTask("t", ["q"], ["cat"], names, documents, {"q": {"d0": 1}}, "f", contexts)
        )

    marked, plain = mark("a red cat", [2, 5]), "a dog"
    around = ("a cow moos", (2, 5))
    joined = with_corpora(task([marked, plain]), [task(["cow"], [around])])
    assert joined.contexts == [("a red cat", (2, 5)), (plain, (0, 5)), around]
    contract = Contract(
        pooling="mean", similarity="cosine", query_prompt="", document_prompt="",
        query_length=8, document_length=8, spans="mean", in_context=True,
    )  # fmt: skip
    assert joined.read_by(contract) == [marked, mark(plain, [0, 5]), mark(around[0], [2, 5])]


def test_a_document_judged_0_is_no_positive():
    qrels = {"q": {"a": 0, "b": 1, "c": 2}}
    task = from_retrieval_task(RetrievalTask("t", ["q"], ["cat"], [*"abc"], [*"xyz"], qrels, "f"))
    assert [rows.tolist() for rows in task.positives] == [[1, 2]]
