"""How many queries of a test stand among those of the training split in its folder."""

from embedtrain.data.readers.beir import beir_files
from embedtrain.data.readers.beir_index import BeirIndex
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.overlap import query_overlap
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.progress import console


def train_overlap(task: Task) -> dict[str, float] | None:
    """Compare the queries of a retrieval task with those of the training split in its folder, if it has one.

    A training split that cannot be read is said, and does not stop the evaluation of another split.
    """
    if not isinstance(task, Retrieval) or task.data.split == "train" or not task.files.is_beir:
        return None
    if not (task.files.path / "qrels" / "train.tsv").is_file():
        return None
    try:
        with BeirIndex(beir_files(task.files.path, "train")) as index:
            training = [index.query(judgments.query_id) for judgments in index.judged_queries()]
    except UserError as error:
        console.print(f"the overlap with the training split was not measured: {error}")
        return None
    return query_overlap(task.task.queries, training)
