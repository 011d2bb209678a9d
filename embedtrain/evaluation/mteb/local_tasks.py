"""Tasks of mteb over files on this machine: new ones, or known ones whose Hub data a file replaces."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.bitext_mining import BitextMining
from embedtrain.evaluation.tasks.classification import Classification
from embedtrain.evaluation.tasks.clustering import Clustering
from embedtrain.evaluation.tasks.labelled import LabelledTexts
from embedtrain.evaluation.tasks.pair_classification import PairClassification
from embedtrain.evaluation.tasks.reranking import Reranking
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.sts import Sts

KINDS: dict[type[Task], tuple[str, type, str]] = {
    Retrieval: ("Retrieval", AbsTaskRetrieval, "ndcg_at_10"),
    Reranking: ("Reranking", AbsTaskRetrieval, "map_at_1000"),
    Sts: ("STS", AbsTaskSTS, "cosine_spearman"),
    PairClassification: ("PairClassification", AbsTaskPairClassification, "similarity_ap"),
    Classification: ("Classification", AbsTaskClassification, "accuracy"),
    Clustering: ("Clustering", AbsTaskClustering, "v_measure"),
    BitextMining: ("BitextMining", AbsTaskBitextMining, "f1"),
}
"""Our kind of task to mteb's type, class and main score."""


def local_task(task: Task) -> Any:  # noqa: ANN401 - a task of mteb
    """Make a task of mteb of ours, named after its data."""
    kind, parent, main_score = KINDS[type(task)]
    unknown = dict.fromkeys(
        (
            *("reference", "date", "domains", "task_subtypes", "license", "annotations_creators"),
            *("dialect", "sample_creation", "bibtex_citation"),
        )
    )
    metadata = TaskMetadata(
        name=task.data.name,
        description=f"{task.data.name}, read from files",
        type=kind,
        category="t2t" if kind in ("Retrieval", "Reranking", "STS") else "t2c",
        modalities=["text"],
        dataset={"path": f"local/{task.data.name}", "revision": revision_of(task)},
        eval_splits=[task.data.split],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        **unknown,
    )
    # 4 % of a file is no task: a local one is clustered whole.
    whole = {"max_fraction_of_documents_to_embed": None} if parent is AbsTaskClustering else {}
    named = type("LocalTask", (parent,), {"metadata": metadata, **whole})()
    return _filled(named, task, "default")


def replace_data(target: Any, task: Task, subset: str | None) -> Any:  # noqa: ANN401 - a task of mteb
    """Give a task of mteb our data in place of its own; its metrics and prompts stay.

    Raises:
        UserError: If the data is of another kind, or a task of several languages needs one named.
    """
    kind, _, _ = KINDS[type(task)]
    wanted = target.metadata.type
    if kind != wanted:
        raise UserError(
            f"--data {target.metadata.name}=...",
            f"must be a task of {wanted}",
            got=kind,
            cure="Check the file, or add --task",
        )
    subsets = list(target.metadata.hf_subsets)
    if subset is None and len(subsets) > 1:
        raise UserError(
            f"--data {target.metadata.name}=...",
            "is a task of several subsets",
            got=subsets[:8],
            cure=f"Name one: {target.metadata.name}:{subsets[0]}=PATH",
        )
    if getattr(target, "parallel_subsets", False):
        raise UserError(
            f"--data {target.metadata.name}=...",
            "is a task whose languages share their rows, which files cannot replace",
            cure="Give the file a name of its own",
        )
    if subset is not None and subset not in subsets:
        raise UserError("--data", "names an unknown subset", got=subset, cure=f"Use {subsets[:8]}")
    source = {**target.metadata.dataset, "revision": revision_of(task)}
    target.metadata = target.metadata.model_copy(update={"dataset": source})
    return _filled(target, task, subset or subsets[0])


def revision_of(task: Task) -> str:
    """Return what stands for the revision of a Hub data set: a hash of the files."""
    return f"local-{task.data.fingerprint[:16]}"


def _filled(target: Any, task: Task, subset: str) -> Any:  # noqa: ANN401 - a task of mteb
    splits = _splits(target, task)
    retrieval = isinstance(target, AbsTaskRetrieval)
    target.dataset = {subset: splits if retrieval else DatasetDict(splits)}
    target.hf_subsets = [subset]
    target._eval_splits = [task.data.split]  # noqa: SLF001 - mteb has no setter for one's own split
    target.data_loaded = True
    return target


def _splits(target: Any, task: Task) -> dict[str, Any]:  # noqa: ANN401 - a task of mteb
    """Lay our data out in the columns that a task of mteb reads."""
    split = task.data.split
    if isinstance(task, Retrieval | Reranking):
        return {split: _retrieval_split(task)}
    if isinstance(task, Sts):
        first, second = target.column_names
        return {
            split: _pairs(task.rows, first, second, score=[float(r["score"]) for r in task.rows])
        }
    if isinstance(task, PairClassification):
        labels = {target.label_column_name: [int(label) for label in task.labels]}
        columns = target.input1_column_name, target.input2_column_name
        return {split: _pairs(task.rows, *columns, **labels)}
    if isinstance(task, BitextMining):
        return {split: _pairs(task.rows, "sentence1", "sentence2")}
    if isinstance(task, Classification):
        parts = {target.train_split: task.training, split: task.test}
        names = sorted({*task.training.labels, *task.test.labels})
        return {name: _labelled(target, texts, names) for name, texts in parts.items()}
    assert isinstance(task, Clustering)
    if isinstance(target, AbsTaskClusteringLegacy):
        texts, labels = target.input_column_name, target.label_column_name
        return {split: Dataset.from_dict({texts: [task.rows.texts], labels: [task.rows.labels]})}
    return {split: _labelled(target, task.rows, sorted(set(task.rows.labels)))}


def _retrieval_split(task: Retrieval | Reranking) -> dict[str, Any]:
    if isinstance(task, Retrieval):
        source = task.task
        documents = dict(zip(source.document_ids, source.documents, strict=True))
        queries, qrels, top_ranked = task.texts, source.qrels, None
    else:
        queries, qrels = task.texts, task.qrels
        documents = {one: text for found in task.candidates.values() for one, text in found.items()}
        top_ranked = {query: list(found) for query, found in task.candidates.items()}
    return {
        "corpus": Dataset.from_dict(
            {
                "id": list(documents),
                "title": [""] * len(documents),
                "text": list(documents.values()),
            }
        ),
        "queries": Dataset.from_dict({"id": list(queries), "text": list(queries.values())}),
        "relevant_docs": {query: dict(labels) for query, labels in qrels.items()},
        "top_ranked": top_ranked,
    }


def _pairs(rows: list[dict[str, Any]], first: Any, second: Any, **more: list[Any]) -> Dataset:  # noqa: ANN401
    names = [next(iter(one)) if isinstance(one, Mapping) else one for one in (first, second)]
    columns = {
        names[0]: [row["sentence1"] for row in rows],
        names[1]: [row["sentence2"] for row in rows],
    }
    return Dataset.from_dict({**columns, **more})


def _labelled(target: Any, texts: LabelledTexts, names: list[str]) -> Dataset:  # noqa: ANN401
    """Lay texts out with the numbers of their labels, which mteb computes with where there are two."""
    column = target.input_column_name
    name = column if isinstance(column, str) else next(iter(column))
    labels = [names.index(label) for label in texts.labels]
    return Dataset.from_dict({name: texts.texts, target.label_column_name: labels})
