"""Workflow: a model becomes scores with intervals, and what they cost."""

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.efficiency import (
    TIMED_QUERIES,
    Efficiency,
    describe_machine,
    measure_latency,
    measure_throughput,
)
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.results.report import summarise
from embedtrain.evaluation.results.result import EvaluatedData, EvaluationResult
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar
from embedtrain.retrieval.search import search
from embedtrain.training.validation import EncodedTask, rank_task

METRICS = ("ndcg_at_10", "mrr_at_10", "map_at_100", "recall_at_100", "precision_at_10")


def measure(
    model: TextEncoder, task: RetrievalTask, split: str, title: str, *, efficiency: bool = True
) -> EvaluationResult:
    """Score a model on a task.

    Args:
        model: The encoder.
        task: Queries, documents, judgments.
        split: Which judgments the task holds; goes into the result.
        title: Shown beside the progress bar.
        efficiency: Time single queries as well.
    """
    with progress_bar(f"{title}: encoding", len(task.queries) + len(task.documents)) as advance:
        queries = encode_texts(model, task.queries, "query", progress=advance)
        documents, per_second = measure_throughput(
            lambda: encode_texts(model, task.documents, "document", progress=advance),
            len(task.documents),
        )
    interaction = interaction_of(model)
    ranking = rank_task(task, EncodedTask(queries, documents, interaction))

    def search_one(query: str) -> object:
        return search(encode_texts(model, [query], "query"), documents, 10, interaction)

    cost = None
    if efficiency:
        cost = Efficiency(
            machine=describe_machine(),
            num_documents=len(task.documents),
            documents_per_second=per_second,
            query_latency=measure_latency(search_one, task.queries, num_calls=TIMED_QUERIES),
            bytes_per_document=documents.nbytes / len(documents),
        )
    return summarise(
        score_ranking(ranking, METRICS),
        EvaluatedData(
            name=task.name,
            split=split,
            fingerprint=task.fingerprint,
            num_queries=len(task.queries),
            num_documents=len(task.documents),
        ),
        efficiency=cost,
    )
