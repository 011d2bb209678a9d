"""Workflow: a model answers queries over documents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.contract.context import Context
from embedtrain.contract.long_inputs import LongInputs
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.units import read_units
from embedtrain.encoding.pair_cache import score_once
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.second_stage import reorder
from embedtrain.evaluation.results.wording import model_name
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.precision import Precision
from embedtrain.recipe.retrieval import load_retrieval_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.sets import set_query
from embedtrain.retrieval.fusion import fuse
from embedtrain.retrieval.ranking import find_owners
from embedtrain.retrieval.search import search
from embedtrain.workflows.encode.file import DOCUMENT_COLUMNS, read_texts
from embedtrain.workflows.evaluate.systems import Fusing
from embedtrain.workflows.finder import Finder
from embedtrain.workflows.prepare import load_task, open_data

RERANKED, FUSED = 50, 100
"""Results that a second model orders anew, and those of each system that are fused, unless the user says otherwise."""


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    rank: int
    score: float
    document_id: str
    text: str
    places: tuple[str, ...] = ()
    """Where each system has it whose results were fused: ``bm25 #3 (12.400)``."""


class Searcher:
    """A model and an encoded corpus.

    Args:
        model: Model folder, run's ``model/`` or Hub id; or ``bm25``.
        data: A BEIR folder, ``python_docs`` or a ``.jsonl`` of documents; None takes what the run that
            made the model was evaluated on.
        split: Split of ``data``, where it has splits.
        instruction: Name of one of the model's, whose prompts take the place of the usual ones.
        long_inputs: How documents may be longer than the model was trained on.
        late_chunks: Tokens of a chunk, where documents are found by their best chunk.
        precision: What the network computes in.
        second: What orders the first results anew, if anything does.
        depth: How many of them; and how many results of each system are fused.
        index: Words of an index, as for :func:`embedtrain.retrieval.indexes.read_index`; None searches exactly.
        fusing: What searches beside ``model``, how queries are asked, and whether documents are found by their units.

    Raises:
        UserError: If the systems cannot search, their weights would have to be learned, or units are missing.
    """

    def __init__(
        self,
        model: str,
        data: str | None = None,
        split: str | None = None,
        instruction: str | None = None,
        long_inputs: LongInputs | None = None,
        late_chunks: int | None = None,
        precision: Precision = "auto",
        second: PairScorer | None = None,
        depth: int | None = None,
        index: str | None = None,
        fusing: Fusing | None = None,
    ) -> None:
        if fusing is not None and fusing.rule == "tuned":
            cure = "Learn weights with embedtrain evaluate, and give them as --weights"
            raise UserError("--fuse tuned", "has no judged queries to learn from", cure=cure)
        self.second, self.precision, self.fusing = second, precision, fusing
        self.depth = depth or (FUSED if fusing is not None and fusing.others else RERANKED)
        self.texts, self.ids, contexts = documents_of(model, data, split)
        searched, self._owner = self.texts, None
        if fusing is not None and fusing.units:
            units = read_units(Path(str(data)), self.ids)
            searched, self._owner, contexts = units.texts, units.owner, None
        feedback = None if fusing is None else fusing.asking.feedback
        self.first = Finder(
            model,
            searched,
            contexts,
            instruction,
            long_inputs,
            late_chunks,
            precision,
            index,
            feedback,
        )
        self.others = [
            Finder(name, searched, contexts, precision=precision)
            for name in (fusing.others if fusing else ())
        ]

    def search(self, query: str, num_results: int = 5) -> list[Hit]:
        """Return the best documents for a query, best first.

        With a second stage they come in its order and with its scores; what it has not seen follows.
        """
        wanted = num_results if self.second is None else max(num_results, self.depth)
        found, places = self._find(query, wanted)
        if self.second is not None:
            shown = found.indices[:, : self.depth]
            pairs = [(query, self.texts[index]) for index in shown[0].tolist() if index >= 0]
            scores = np.full(shown.shape, -np.inf, dtype=np.float32)
            scores[shown >= 0] = score_once(self.second, pairs, "--rerank", None).scores
            found = reorder(found, scores, shown.shape[1])
        hits = list_hits(found, self.ids, self.texts)[0][:num_results]
        rows = found.indices[0].tolist()
        return [
            replace(hit, places=tuple(places.get(row, ())))
            for hit, row in zip(hits, rows, strict=False)
        ]

    def _find(self, query: str, num_results: int) -> tuple[SearchResult, dict[int, list[str]]]:
        """Return what was found, and where each system has a document if there are several."""
        if not self.others:
            return self._documents(self.first, query, num_results), {}
        finders = [self.first, *self.others]
        lists = [self._documents(one, query, self.depth) for one in finders]
        places: dict[int, list[str]] = {}
        for finder, found in zip(finders, lists, strict=True):
            listed = zip(found.indices[0].tolist(), found.scores[0].tolist(), strict=True)
            for rank, (row, score) in enumerate(listed, 1):
                place = f"{model_name(finder.name)} #{rank} ({score:.3f})"
                places.setdefault(row, []).append(place)
        assert self.fusing is not None
        return fuse(lists, self.fusing.fusion(), num_results), places

    def _documents(self, finder: Finder, query: str, num_results: int) -> SearchResult:
        """Return the best documents that a system finds, by their best units where those are searched."""
        if self._owner is None:
            return finder.find([query], num_results)
        return find_owners(lambda number: finder.find([query], number), self._owner, num_results)

    def search_sets(
        self, like: Sequence[Path], unlike: Sequence[Path] = (), num_results: int = 5
    ) -> list[Hit]:
        """Return the documents that are like the texts of some files and unlike those of others.

        Raises:
            UserError: If there is no file of texts, or a text has several vectors.
        """
        model = self.first.model
        kept = self.first.embeddings
        if not isinstance(model, DenseEncoder) or model.interaction is not None or kept is None:
            raise UserError("--like", "needs a model with one vector per text and inner products")

        def encode(path: Path) -> NDArray[np.float32]:
            texts = list(read_texts(path, None))
            return encode_texts(model, texts, "document", precision=self.precision)

        vector = set_query([encode(path) for path in like], [encode(path) for path in unlike])
        found = search(vector, kept, num_results, device=model.device)
        return list_hits(found, self.ids, self.texts)[0]


def list_hits(found: SearchResult, ids: Sequence[str], texts: Sequence[str]) -> list[list[Hit]]:
    """Return the results of each query, with the ids and texts of the documents searched."""
    return [
        [
            Hit(rank, float(score), ids[index], texts[index])
            for rank, (index, score) in enumerate(zip(indices.tolist(), scores, strict=True), 1)
            if index >= 0
        ]
        for indices, scores in zip(found.indices, found.scores, strict=True)
    ]


def documents_of(
    model: str, data: str | None, split: str | None = None
) -> tuple[list[str], list[str], list[Context] | None]:
    """Return the texts and ids of what is to be searched, and the documents that the texts are chunks of, if any.

    Rows of a file that share a text are one document.

    ``data`` is as for :class:`Searcher`.

    Raises:
        UserError: If it names nothing.
    """
    task = _find_task(model, data, split)
    if task is not None:
        return task.documents, task.document_ids, task.contexts
    lines: dict[str, int] = {}
    for number, text in enumerate(read_texts(Path(str(data)), None, DOCUMENT_COLUMNS), 1):
        lines.setdefault(text, number)
    return list(lines), list(map(str, lines.values())), None


def _find_task(model: str, data: str | None, split: str | None) -> RetrievalTask | None:
    """Return what to search; None if ``data`` is a file."""
    if data is not None:
        return None if Path(data).is_file() else load_task(data, split or "test")
    run = RunFolder(Path(model).parent)
    if run.is_run:
        recipe = load_retrieval_recipe(run.recipe)
        if split is not None and recipe.evaluation is not None and recipe.evaluation.path:
            return load_task(recipe.evaluation.path, split)
        if recipe.evaluation is not None:
            return open_data(recipe).evaluation
    raise UserError(
        "--data",
        "is missing and the model's run names no evaluation data",
        cure="Say what to search",
    )
