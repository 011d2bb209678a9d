"""What a model costs on a corpus: encoding speed, latency of a query, bytes of the index."""

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.efficiency import (
    Efficiency,
    cost_of_search,
    measure_latency,
    measure_throughput,
)
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.retrieval.search import search

TIMED_DOCUMENTS = 512


def measure_cost(
    subject: Subject, task: RetrievalTask, price_per_hour: float | None = None
) -> Efficiency:
    """Time a model on a task whose vectors are in the cache.

    Documents are timed on a sample spread evenly over the corpus, which is encoded once more; a query from
    its text to its results over the whole corpus, by exact search or the index of the subject.
    """
    step = max(1, len(task.documents) // TIMED_DOCUMENTS)
    sample = task.documents[::step][:TIMED_DOCUMENTS]
    _, per_second = measure_throughput(
        lambda: encode_texts(subject.model, sample, "document", precision=subject.chosen),
        len(sample),
    )
    interaction = interaction_of(subject.model)
    documents = subject.encode(task.documents, "document")
    device = subject.model.device
    index = (
        subject.compression.index(documents, device)
        if subject.index is None
        else subject.built(task.documents).index
    )
    normalized = subject.model.contract.similarity == "cosine"

    def search_one(query: str) -> object:
        vectors = encode_texts(subject.model, [query], "query", precision=subject.chosen)
        if interaction is not None:
            return search(vectors, documents, 10, interaction, device)
        return index.search(subject.compression.cut(vectors, normalized=normalized), 10)

    latency = measure_latency(search_one, task.queries)
    return cost_of_search(len(task.documents), per_second, latency, index.num_bytes, price_per_hour)
