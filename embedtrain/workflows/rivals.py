"""Fewer documents to search where all of them take too long: any, or those that are hard to tell from the answers."""

from math import ceil

from embedtrain.data.readers.beir import RetrievalTask, bounded
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.training.settings import Others

AMONG = 50_000
"""Of more documents so many are looked through: BM25 keeps all their words in memory."""
SPARE = 4
"""Times as many documents of each query are looked at as would fill the room if queries shared none."""


def with_fewer(
    task: RetrievalTask, num_queries: int | None, num_documents: int | None, others: Others
) -> RetrievalTask:
    """Return a smaller task, as ``bounded`` does; with ``bm25`` its other documents are rivals of the answers.

    They are the first that BM25 finds for each query, then the second, and so on. BM25 is neither of the models that are
    compared, so its choice favours none of them. Among random documents a good model finds nearly every answer, whatever
    it has learned.
    """
    asked = bounded(task, num_queries, None)
    if others == "random" or num_documents is None or num_documents >= len(task.documents):
        return bounded(task, num_queries, num_documents)
    asked = bounded(asked, None, AMONG)
    depth = SPARE * ceil(num_documents / len(asked.queries))
    index = Bm25Index(Bm25Search(), asked.documents)
    ranks = index.search(asked.queries, depth).indices.T.ravel().tolist()
    return bounded(
        task, num_queries, num_documents, [asked.document_ids[row] for row in ranks if row >= 0]
    )
